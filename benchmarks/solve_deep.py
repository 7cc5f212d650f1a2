"""How long deep sigmoidal theories take, and how far two cold starts are apart.

    OMP_NUM_THREADS=1 python benchmarks/solve_deep.py --classes 2 3 --depths 2 3
    OMP_NUM_THREADS=1 python benchmarks/solve_deep.py --samples 60 120 240 480 --depths 2

One row a case: two to four classes, the first with twice the inputs of each other one (two: equal),
P = 60, N T = 0.02. Time is that of the processor. "apart" is the largest relative difference of the kernel
of a layer between two seeds, "stated" the one that the solution reports for other quasi-random points.
"""

import argparse
import itertools
import time

import numpy as np

import fltheory as flt

_RATIOS = {2: (0.5, 0.5), 3: (0.5, 0.25, 0.25), 4: (0.4, 0.2, 0.2, 0.2)}
_WIDTH = 200


def posterior(
    n_samples: int, n_classes: int, depth: int, scaled_temperature: float
) -> flt.DeepNetworkPosterior:
    """The posterior of one row."""
    task = flt.OrthogonalClassification(n_samples, _RATIOS[n_classes])
    return flt.DeepNetworkPosterior(
        task,
        flt.Sigmoid(),
        n_hidden_layers=depth,
        width=_WIDTH,
        temperature=scaled_temperature / _WIDTH,
    )


def row(n_samples: int, n_classes: int, depth: int, scaled_temperature: float) -> str:
    """One case solved from two seeds."""
    start, case = time.process_time(), posterior(n_samples, n_classes, depth, scaled_temperature)
    first, second = (case.solve(seed=seed, progress=False) for seed in (0, 1))
    seconds = 0.5 * (time.process_time() - start)
    pairs = [(first.kernel(layer), second.kernel(layer)) for layer in range(1, depth + 1)]
    apart = max(np.linalg.norm(one - other) / np.linalg.norm(one) for one, other in pairs)
    assert first.agreement is not None
    return (
        f"{n_samples:5d} {n_classes:7d} {depth:5d} {seconds:8.1f} {first.n_iterations:6d} "
        f"{-first.free_energy:11.4f} {first.residual:9.1e} {apart:8.1e} {first.agreement.kernel:8.1e}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[60], help="P")
    parser.add_argument("--classes", type=int, nargs="+", choices=_RATIOS, default=[2, 3])
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--scaled-temperature", type=float, default=0.02, help="N T")
    arguments = parser.parse_args()
    print("    P classes depth  seconds rounds           J  residual    apart   stated")
    for case in itertools.product(arguments.samples, arguments.classes, arguments.depths):
        print(row(*case, arguments.scaled_temperature), flush=True)


if __name__ == "__main__":
    main()
