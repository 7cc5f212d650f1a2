"""Hidden layers on real images: the theory beside networks started from its neurons.

    OMP_NUM_THREADS=1 python benchmarks/deep_digits.py --samples 100 --widths 300 600
    OMP_NUM_THREADS=1 python benchmarks/deep_digits.py --layers 3 --classes 0 1 --samples 24 --widths 150 300

Networks on classes of digits at fixed N T. First the theory, with the time it took, the blocks of <phi phi^T>
of each layer and the shares of the codes; then a row a width: root mean square differences of these kernels,
of t and of the outputs for test images, and the correlation of t with the theory over examples.
"""

import argparse
import time

import numpy as np

import fltheory as flt
from fltheory.numerics.validation import Array, Integers

PHIS = {"sigmoid": flt.Sigmoid(), "erf": flt.Erf(), "tanh": flt.Tanh()}


def options() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phi", choices=PHIS, default="sigmoid")
    parser.add_argument("--layers", type=int, default=2, help="L")
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=100, help="P")
    parser.add_argument("--scaled-temperature", type=float, default=0.04, help="N T")
    parser.add_argument("--widths", type=int, nargs="*", default=[300, 600])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--thin", type=int, default=2)
    parser.add_argument("--chains", type=int, default=4)
    return parser.parse_args()


def blocks(kernel: Array, labels: Integers) -> Array:
    """Means of a kernel over pairs of different images of two classes, upper triangle row by row."""
    own = np.eye(len(labels), dtype=bool)
    n = int(labels.max()) + 1
    pairs = [(a, b) for a in range(n) for b in range(a, n)]
    return np.array([kernel[np.outer(labels == a, labels == b) & ~own].mean() for a, b in pairs])


def rms(difference: Array) -> float:
    """Root mean square."""
    return float(np.sqrt((difference**2).mean()))


def main() -> None:
    """Print the theory and the table."""
    given = options()
    task = flt.Digits(classes=tuple(given.classes), n_samples=given.samples)
    base = flt.DeepNetworkPosterior(
        task,
        PHIS[given.phi],
        n_hidden_layers=given.layers,
        width=100,
        temperature=given.scaled_temperature / 100,
    )
    began = time.process_time()
    theory = base.solve()
    assert task.labels is not None
    print(f"{theory!r}, {time.process_time() - began:.0f} s", flush=True)
    layers = range(1, given.layers + 1)
    for layer in layers:
        print(f"blocks of layer {layer}", blocks(theory.kernel(layer), task.labels).round(4))
    print("codes", *(f"{b.code} {b.probability:.4f}" for b in theory.branches if b.probability > 1e-4))
    expected = theory.predict(task.test_inputs).mean
    for width in given.widths:
        began = time.perf_counter()
        networks = base.at_width(width).sample(
            flt.HMC(),
            start=[[theory.neurons(width, k, 100 * c + k) for k in layers] for c in range(given.chains)],
            n_draws=given.draws,
            n_warmup=given.warmup,
            thin=given.thin,
            n_chains=given.chains,
        )
        field = networks.dual_field_draws.mean((0, 1))
        kernels = [rms(networks.kernel(layer) - theory.kernel(layer)) for layer in layers]
        print(
            f"N = {width}: kernels {np.round(kernels, 4)}, "
            f"t {rms(field - theory.dual_field):.4f} of {rms(theory.dual_field):.2f} "
            f"(correlation {np.corrcoef(field.ravel(), theory.dual_field.ravel())[0, 1]:.4f}), "
            f"test outputs {rms(networks.predict(task.test_inputs).mean - expected):.4f}, "
            f"blocks {blocks(networks.kernel(1), task.labels).round(4)}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
