"""How long deep sigmoidal theories take, and how far two cold starts are apart.

    OMP_NUM_THREADS=1 python benchmarks/solve_deep.py --classes 2 3 --depths 2 3

One row a case: classes with shares 1/2, 1/2 or 1/2, 1/4, 1/4, P = 60, N T = 0.02. Time is that of the
processor. "apart" is the relative difference of the kernels of all layers between two seeds, "stated" the
one that the solution reports for other quasi-random points.
"""

import argparse
import time

import numpy as np

import fltheory as flt

_RATIOS = {2: (0.5, 0.5), 3: (0.5, 0.25, 0.25)}
_WIDTH = 200


def posterior(n_classes: int, depth: int, scaled_temperature: float) -> flt.DeepNetworkPosterior:
    """The posterior of one row."""
    task = flt.OrthogonalClassification(60, _RATIOS[n_classes])
    return flt.DeepNetworkPosterior(
        task,
        flt.Sigmoid(),
        n_hidden_layers=depth,
        width=_WIDTH,
        temperature=scaled_temperature / _WIDTH,
    )


def row(n_classes: int, depth: int, scaled_temperature: float) -> str:
    """One case solved from two seeds."""
    start = time.process_time()
    solutions = [
        posterior(n_classes, depth, scaled_temperature).solve(seed=s, progress=False) for s in (0, 1)
    ]
    seconds = 0.5 * (time.process_time() - start)
    one, other = (np.stack([s.kernel(layer) for layer in range(1, depth + 1)]) for s in solutions)
    apart = np.linalg.norm(one - other) / np.linalg.norm(one)
    first = solutions[0]
    assert first.agreement is not None
    return (
        f"{n_classes:7d} {depth:5d} {seconds:8.1f} {first.n_iterations:6d} {-first.free_energy:11.4f} "
        f"{first.residual:9.1e} {apart:8.1e} {first.agreement.kernel:8.1e}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", choices=(2, 3), default=[2, 3])
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--scaled-temperature", type=float, default=0.02, help="N T")
    arguments = parser.parse_args()
    print("classes depth  seconds rounds           J  residual    apart   stated")
    for n_classes in arguments.classes:
        for depth in arguments.depths:
            print(row(n_classes, depth, arguments.scaled_temperature), flush=True)


if __name__ == "__main__":
    main()
