"""Whether chains from different starts find the same codes, those of the theory.

    OMP_NUM_THREADS=1 python benchmarks/code_shares.py --case classes --temperature 1e-4

Chains start from the prior, from neurons of the theory and from networks with all neurons on one
code. A row a start: the share of the neurons on each code with its standard error over chains, and
how many of the neurons change code from one draw to the next. Then R-hat over the chains of all
starts, and the shares of the theory, at infinite width and with its terms of order 1/N. Cases:
three classes of orthogonal inputs (P = 60, N = 300), three classes of digits (P = 100, N = 400),
and, for a ReLU network with two classes of orthogonal inputs, the number of strong neurons.
``--sampler hmc`` shows the frozen twin.
"""

import argparse
import time

import numpy as np
from attrs import evolve

import fltheory as flt
from fltheory.numerics.validation import Array

CASES = {
    "classes": (flt.OrthogonalClassification(60, (0.5, 0.25, 0.25)), flt.Sigmoid(), 300),
    "digits": (flt.Digits(classes=(0, 1, 2), n_samples=100), flt.Sigmoid(), 400),
    "relu": (flt.OrthogonalClassification(60, (0.5, 0.5)), flt.ReLU(), 300),
}
_WARM = 1e-5  # T of the theory that supplies starts and shares where it is not known at T


def options() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="classes")
    parser.add_argument("--temperature", type=float, default=1e-4)
    parser.add_argument("--sampler", choices=("default", "hmc"), default="default")
    parser.add_argument("--starts", nargs="+", default=["prior", "theory", "one"])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--thin", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def codes_of(phi: Array, task: flt.Task) -> Array:
    """The code of each neuron as a number: from activations (..., P) to (...)."""
    classes = [task.labels == c for c in range(task.n_outputs)]
    return sum((phi[..., c].mean(-1) > 0.5) * 2**k for k, c in enumerate(classes))


def of_one_code(theory: flt.MeanFieldSolution, width: int, n_chains: int, seed: int) -> list[flt.Neurons]:
    """Networks with all neurons on the most common code."""
    drawn = theory.neurons(6 * width * n_chains, 1, seed)
    codes = codes_of(drawn.activations, theory.model.task)
    values, counts = np.unique(codes, return_counts=True)
    chosen = np.flatnonzero(codes == values[counts.argmax()])[: width * n_chains].reshape(n_chains, width)
    return [
        flt.Neurons(drawn.activations[rows], drawn.preactivations[rows], drawn.readouts[rows])
        for rows in chosen
    ]


def with_few_strong(posterior: flt.DeepNetworkPosterior, n_chains: int, seed: int) -> list[flt.Neurons]:
    """Networks of a silent bulk and one strong neuron a class."""
    task, rng = posterior.task, np.random.default_rng(seed)
    networks = []
    for _ in range(n_chains):
        z = 0.3 * rng.standard_normal((posterior.width, task.n_samples))
        for c in range(task.n_outputs):
            z[c, task.labels == c] += np.sqrt(0.6 * posterior.width)
        phi = posterior.nonlinearity(z)
        networks.append(flt.Neurons(phi, z, None))
    return networks


def strong(phi: Array) -> Array:
    """The participation ratio of the neurons' squared activations, (..., N, P) to (...)."""
    size = (phi**2).mean(-1) ** 2
    return size.sum(-1) ** 2 / (size**2).sum(-1)


def main() -> None:
    """Print the table."""
    given = options()
    task, phi, width = CASES[given.case]
    posterior = flt.DeepNetworkPosterior(task, phi, width=width, temperature=given.temperature)
    warm = evolve(posterior, temperature=max(given.temperature, _WARM if given.case == "digits" else 0.0))
    theory = warm.solve()
    one = (
        with_few_strong(posterior, given.chains, given.seed)
        if given.case == "relu"
        else of_one_code(theory, width, given.chains, given.seed)
    )
    seeds = range(given.seed, given.seed + given.chains)
    starts = {"prior": "prior", "theory": [theory.neurons(width, 1, s) for s in seeds], "one": one}
    sampler = flt.HMC() if given.sampler == "hmc" else None
    runs = []
    for name in given.starts:
        began = time.perf_counter()
        samples = posterior.sample(
            sampler,
            n_draws=given.draws,
            n_chains=given.chains,
            n_warmup=given.warmup,
            thin=given.thin,
            start=starts[name],
            seed=given.seed,
        )
        seconds = time.perf_counter() - began
        report(name, samples, seconds)
        runs.append(samples)
    print(runs[0].diagnostics(*runs[1:]))
    print_theory("theory", theory)
    if posterior.nonlinearity.is_bounded:  # where neurons condense there are no terms of order 1/N
        print_theory("with terms of order 1/N", warm.solve(finite_width=True))


def print_theory(name: str, theory: flt.MeanFieldSolution) -> None:
    """The share of each code."""
    print(name, *(f"{branch.code} {branch.probability:.4f}" for branch in theory.branches))


def report(name: str, samples: flt.PosteriorSamples, seconds: float) -> None:
    """One row of the table."""
    task, n_chains = samples.model.task, samples.n_chains
    if name == "prior":
        print(f"{samples!r} with {samples.sampler!r}")
    if samples.model.nonlinearity.is_bounded:
        codes = samples.functional(lambda activations: codes_of(activations, task))  # (C, D, N)
        shares = np.stack([(codes == k).mean(-1) for k in range(2**task.n_outputs)], -1)
        flips = f"{(np.diff(codes, axis=1) != 0).mean():.4f} change code a draw"
    else:
        shares, flips = samples.functional(strong)[..., None], "effective number of strong neurons"
    mean, error = shares.mean((0, 1)), shares.mean(1).std(0, ddof=1) / np.sqrt(n_chains)
    seen = mean > 5e-3
    cells = [f"{m:.4f}({1e4 * e:.0f})" for m, e in zip(mean[seen], error[seen], strict=True)]
    print(f"{name:7}", *cells, flips, f"training error {samples.training_error.max():.1e}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
