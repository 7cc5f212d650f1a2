"""Whether the two engines for any kernel agree on random problems, each within its stated errors.

    OMP_NUM_THREADS=1 python benchmarks/solve_random.py --first 0 --last 30

One row an instance, drawn by a fixed seed: pairs, triples and 4-tuples of digits or Gaussian
mixtures, several phi, N T and prior variances. Each is solved as ``solve()`` would and compared
with weighted particles of another seed: relative differences of t and the kernel, and the root mean
square difference of the predictor. The verdict is "agree" if t and kernel differ by less than 2 %,
"explained" if by less than three times the errors stated, "refused" if the solver said that it
failed, else "SILENTLY WRONG".
"""

import argparse
import time

import numpy as np

import fltheory as flt
from fltheory.numerics.validation import Array

_WIDTH, _N_NEW = 300, 50
_CLOSE, _SIGMAS = 0.02, 3.0
_PHIS = (flt.Sigmoid(), flt.Erf(), flt.Tanh(), flt.ReLU())


def mixture(rng: np.random.Generator, n_samples: int) -> flt.ArrayTask:
    """Two to four Gaussian classes in 20 to 80 dimensions, their images of mean square 1."""
    n_classes, n_inputs = int(rng.integers(2, 5)), int(rng.integers(20, 81))
    labels = np.arange(n_samples + _N_NEW) % n_classes
    centres = rng.standard_normal((n_classes, n_inputs))
    inputs = centres[labels] + rng.uniform(0.5, 1.5) * rng.standard_normal((len(labels), n_inputs))
    inputs /= np.sqrt(np.mean(inputs**2, axis=1, keepdims=True))
    one_hot = np.eye(n_classes)[labels]
    train, new = slice(n_samples), slice(n_samples, None)
    return flt.ArrayTask(inputs[train], one_hot[train], labels[train], inputs[new], one_hot[new])


def instance(index: int) -> flt.DeepNetworkPosterior:
    """The posterior of one row."""
    rng = np.random.default_rng([2024, index])
    n_samples = int(rng.integers(50, 151))
    scaled_temperature, variance = (float(np.exp(rng.uniform(*np.log(b)))) for b in ((0.02, 0.2), (0.3, 3.0)))
    phi = _PHIS[rng.integers(len(_PHIS))]
    if index % 4 == 3:
        task: flt.Task = mixture(rng, n_samples)
    else:
        classes = tuple(int(c) for c in np.sort(rng.choice(10, size=2 + index % 4, replace=False)))
        task = flt.Digits(classes, n_samples, _N_NEW, seed=index)
    prior = flt.GaussianPrior(readout_variance=variance)
    return flt.DeepNetworkPosterior(task, phi, prior, width=_WIDTH, temperature=scaled_temperature / _WIDTH)


def distance(one: Array, other: Array) -> float:
    """Relative, in the Frobenius norm."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def errors(solution: flt.MeanFieldSolution) -> tuple[float, float]:
    """Stated relative standard errors of t and the kernel: half of how far the second answer is."""
    known = solution.agreement
    return (0.0, 0.0) if known is None else (0.5 * known.dual_field, 0.5 * known.kernel)


def verdict(one: flt.MeanFieldSolution, other: flt.MeanFieldSolution, field: float, kernel: float) -> str:
    """What the differences of t and the kernel are worth."""
    if max(field, kernel) < _CLOSE:
        return "agree"
    allowed, allowed_kernel = _SIGMAS * np.hypot(errors(one), errors(other))
    return "explained" if field < allowed and kernel < allowed_kernel else "SILENTLY WRONG"


def row(index: int) -> str:
    """Solve one instance twice, print its row, and return the verdict."""
    p = instance(index)
    name = f"{index:>3} {type(p.nonlinearity).__name__:<8}{p.task.n_outputs:>2}{p.task.n_samples:>5}"
    name += f"{p.model.scaled_temperature:>7.3f}{p.model.readout_variance * p.task.n_samples:>6.2f}"
    start = time.perf_counter()
    try:
        one = p.solve()
        seconds = time.perf_counter() - start
        other = p.solve(method="particles", seed=1)
    except flt.ConvergenceError as error:
        print(f"{name}  refused after {time.perf_counter() - start:.1f} s: {error}", flush=True)
        return "refused"
    field, kernel = distance(one.dual_field, other.dual_field), distance(one.kernel(1), other.kernel(1))
    means = [s.predict(p.task.test_inputs).mean for s in (one, other)]
    said = verdict(one, other, field, kernel)
    stated = np.hypot(errors(one), errors(other))
    print(
        f"{name}  {one.method:<10}{seconds:>6.1f}{one.residual:>9.1e}{field:>8.4f}{kernel:>8.4f}"
        f"{np.sqrt(np.mean((means[0] - means[1]) ** 2)):>8.4f}{stated[0]:>8.4f}{stated[1]:>8.4f}  {said}",
        flush=True,
    )
    return said


def main() -> None:
    """Print the table and how often each verdict was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="first instance")
    parser.add_argument("--last", type=int, default=30, help="one past the last instance")
    options = parser.parse_args()
    print(
        f"{'#':>3} {'phi':<8}{'m':>2}{'P':>5}{'N T':>7}{'s_a':>6}  {'method':<10}{'sec':>6}{'residual':>9}"
        f"{'dt':>8}{'dK':>8}{'df':>8}{'err t':>8}{'err K':>8}"
    )
    verdicts = [row(index) for index in range(options.first, options.last)]
    counts = {v: verdicts.count(v) for v in ("agree", "explained", "refused", "SILENTLY WRONG")}
    print(", ".join(f"{count} {name}" for name, count in counts.items()), f"of {len(verdicts)}")


if __name__ == "__main__":
    main()
