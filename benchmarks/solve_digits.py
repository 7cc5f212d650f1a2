"""How long the theory takes on real images, in seconds and in products of P x P matrices.

    OMP_NUM_THREADS=1 python benchmarks/solve_digits.py

One row a task: digits of three classes at N T = 0.04, sigmoidal network with one hidden layer. The
time is the median of several solutions from scratch; the matrix product that it is measured in is
timed in the same process, on the same number of threads.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

import fltheory as flt


def median_time(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of ``run``, in seconds, after one call that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def widened(task: flt.Task, seed: int = 0) -> flt.ArrayTask:
    """The same images with as many noise pixels as images, so that the kernel has full rank."""
    noise = np.random.default_rng(seed).standard_normal((task.n_samples, task.n_samples))
    inputs = np.column_stack([task.inputs, noise])
    inputs /= np.sqrt(np.mean(inputs**2, axis=1, keepdims=True))
    return flt.ArrayTask(inputs, task.targets, task.labels)


def report(name: str, task: flt.Task, repeats: int) -> None:
    """Solve and print one row."""
    posterior = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=400, temperature=1e-4)
    solution = posterior.solve()
    seconds = median_time(posterior.solve, repeats)
    matrix = np.random.default_rng(0).standard_normal((task.n_samples, task.n_samples))
    product = median_time(lambda: matrix @ matrix, 50)
    rank = np.linalg.matrix_rank(task.gram())
    print(
        f"{name:<22}{task.n_samples:>6}{rank:>6}{seconds:>10.2f}{seconds / product:>12.0f}"
        f"{solution.n_iterations:>8}{solution.residual:>12.1e}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="solutions per row")
    parser.add_argument("--large", action="store_true", help="also P = 300 and 500, and a full-rank kernel")
    options = parser.parse_args()
    print(f"{'task':<22}{'P':>6}{'rank':>6}{'seconds':>10}{'products':>12}{'steps':>8}{'residual':>12}")
    report("digits 0, 1, 2", flt.Digits(), options.repeats)
    if options.large:
        for n_samples in (300, 500):
            report("digits 0, 1, 2", flt.Digits(n_samples=n_samples, n_test=0), 1)
        report("digits and noise", widened(flt.Digits(n_samples=300, n_test=0)), 1)


if __name__ == "__main__":
    main()
