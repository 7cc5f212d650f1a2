"""How long the theory of deep ReLU networks on orthogonal inputs takes, and what it finds.

    OMP_NUM_THREADS=1 python benchmarks/solve_deep_relu.py --quick

One row a case: seconds of processor time, steps, residual, the difference from another lattice, t of
the first class on its own and on another class, kernel blocks of the last layer, zbar^2 of the condensed
neurons of layer 1 and lambda of each layer. Cases are two and three hidden layers with two equal
classes, one of them at T = 0, and two and three unequal classes.
"""

import argparse
import time

import numpy as np

import fltheory as flt

_WIDTH, _N_SAMPLES = 300, 60
_QUICK = ((2, (0.5, 0.5), 0.03), (2, (0.5, 0.5), 0.0))
_ALL = (*_QUICK, (2, (0.75, 0.25), 0.03), (2, (0.5, 0.25, 0.25), 0.03), (3, (0.5, 0.5), 0.03))


def row(n_hidden_layers: int, ratios: tuple[float, ...], scaled_temperature: float) -> str:
    """Solve one case."""
    task = flt.OrthogonalClassification(_N_SAMPLES, ratios)
    posterior = flt.DeepNetworkPosterior(
        task,
        flt.ReLU(),
        n_hidden_layers=n_hidden_layers,
        width=_WIDTH,
        temperature=scaled_temperature / _WIDTH,
    )
    name = f"{n_hidden_layers:>2} {'/'.join(f'{r:g}' for r in ratios):<14}{scaled_temperature:>6.3f}"
    start = time.process_time()
    try:
        theory = posterior.solve(progress=False)
    except flt.ConvergenceError as error:
        return f"{name}  refused after {time.process_time() - start:.1f} s: {error}"
    seconds, labels = time.process_time() - start, task.labels
    own, other = (labels == 0).nonzero()[0][:2], int((labels == 1).argmax())
    kernel, field = theory.kernel(n_hidden_layers), theory.dual_field
    strengths = np.sort(theory.decomposition(1).outliers.max(1, initial=0.0) ** 2)[::-1]
    gap = 0.0 if theory.agreement is None else max(theory.agreement.dual_field, theory.agreement.kernel)
    return (
        f"{name}{seconds:>8.1f}{theory.n_iterations:>6}{theory.residual:>9.1e}{gap:>9.1e}"
        f"{field[own[0], 0]:>9.4f}{field[other, 0]:>9.4f}{kernel[own[0], own[1]]:>9.4f}"
        f"{kernel[own[0], other]:>9.4f}  {np.round(strengths, 4)} {np.round(theory.neuron.gains, 4)}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two hidden layers and two equal classes only")
    options = parser.parse_args()
    print(
        f"{'L':>2} {'classes':<14}{'N T':>6}{'sec':>8}{'steps':>6}{'residual':>9}{'gap':>9}{'t own':>9}"
        f"{'t other':>9}{'K own':>9}{'K other':>9}  zbar^2, lambda"
    )
    for case in _QUICK if options.quick else _ALL:
        print(row(*case), flush=True)


if __name__ == "__main__":
    main()
