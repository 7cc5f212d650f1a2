"""How fast networks are sampled, by this package and by NumPyro and BlackJAX, on one core.

    OMP_NUM_THREADS=1 python benchmarks/sampling_peers.py --seconds 60 --json peers.json

First the time of a gradient of four chains, next to that of the matrix products it cannot do without.
Then effective draws a second: of each group of functionals (entries of the kernel, the predictor at three
new inputs, shares of the codes) the least rank-normalised ESS over the seconds of drawing and, in brackets,
those of the warm-up too, and the largest R-hat. "~": R-hat above 1.05, the ESS means nothing yet; "stuck":
something never changed in a chain. All sample one posterior, in float64, four chains, the peers all weights,
whitened. Seconds are of the processor: those of the wall if nothing else runs, both are in the file. It
needs the extra: python -m pip install -e .[bench]
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sampling_problem import N_CHAINS, OURS, PHIS, Problem, clock
from torch import Tensor

from fltheory.network.reduction import Reduction
from fltheory.network.target import IntegratedTarget, NetworkTarget, WeightTarget

_QUICK = {
    "width": 40, "n_samples": 12, "n_inputs": 48, "temperatures": [1e-4], "phis": ["sigmoid"],
    "starts": ["theory"], "seconds": 0.5, "warmup": 50, "repeats": 3, "depth": 5,
}  # fmt: skip


def least_times(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Least milliseconds of processor and wall of each; in turn, so that all meet the same neighbours."""
    found = np.full((len(runs), repeats, 2), np.inf)
    for run in runs:
        run()
    for repeat, (k, run) in product(range(repeats), enumerate(runs)):
        start = clock()
        run()
        found[k, repeat] = 1e3 * (clock() - start)
    return found.min(1).tolist()


def products(target: NetworkTarget) -> Callable[[], object]:
    """The matrix products of a gradient of four chains, and nothing else."""
    task, n = target.model.task, target.model.width
    p, q = task.inputs.shape
    has_readouts = isinstance(target, WeightTarget)
    weights, inputs = torch.randn(N_CHAINS * n, q).double(), torch.randn(p, q).double()
    flat, features = torch.randn(N_CHAINS * n, p).double(), torch.randn(N_CHAINS, n, p).double()
    right = torch.randn(N_CHAINS, n, task.n_outputs if has_readouts else p).double()
    left = torch.randn(N_CHAINS, p, right.shape[-1]).double()

    def run() -> None:
        weights @ inputs.mT, flat @ inputs  # preactivations, and the slope in the weights
        features.mT @ right  # outputs, or the Gram matrix
        right @ left.mT  # the slope in the features
        if has_readouts:
            features @ left  # that in the readouts

    return run


def gradients(
    problem: Problem, extra: Mapping[str, Callable[[], object]], repeats: int
) -> list[dict[str, Any]]:
    """One row a choice of coordinates, and ``extra`` ways to compute the gradient in all weights."""
    whole = problem.posterior.model
    small = Reduction.of(whole).model
    targets: dict[str, NetworkTarget] = {
        "fltheory, integrated": IntegratedTarget(small),
        "fltheory, preactivations": WeightTarget(small),
        "fltheory, hidden weights": IntegratedTarget(whole),
        "fltheory, weights": WeightTarget(whole),
    }
    runs = [partial(target.value_and_gradient, noise(target)) for target in targets.values()]
    targets |= dict.fromkeys(extra, problem.plain)
    times = least_times([*runs, *extra.values(), *map(products, targets.values())], repeats)
    n = len(targets)
    return [
        {"name": name, "dimension": target.dimension, "ms": cpu, "wall_ms": wall, "products_ms": floor}
        for (name, target), (cpu, wall), (floor, _) in zip(targets.items(), times[:n], times[n:], strict=True)
    ]


def noise(target: NetworkTarget) -> Tensor:
    """Positions of four chains, drawn from the prior."""
    return torch.randn(N_CHAINS, target.dimension, generator=torch.Generator().manual_seed(0)).double()


def print_gradients(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of the first part."""
    print(f"{'gradient of four chains':<28}{'weights':>9}{'ms':>9}{'wall ms':>9}{'products':>10}{'ratio':>7}")
    for row in rows:
        print(
            f"{row['name']:<28}{row['dimension']:>9}{row['ms']:>9.2f}{row['wall_ms']:>9.2f}"
            f"{row['products_ms']:>10.2f}{row['ms'] / row['products_ms']:>7.2f}"
        )


def combined(values: Sequence[Any]) -> Any:
    """Of the runs of all seeds, medians of those that are known; converged if all have."""
    known = [value for value in values if value is not None]
    if known and isinstance(known[0], Mapping):
        names = dict.fromkeys(name for value in known for name in value)
        return {name: combined([value.get(name) for value in known]) for name in names}
    return None if not known else all(known) if isinstance(known[0], bool) else float(np.median(known))


def text(group: Mapping[str, Any] | None) -> str:
    """ESS a second, in brackets with the warm-up, and R-hat."""
    if not group:
        return f"{'-':>25}"
    if "ess_per_second" not in group:
        return f"{'stuck' if group['is_stuck'] else 'too few draws':>25}"
    mark = " " if group["has_converged"] else "~"
    return f"{mark:>4}{group['ess_per_second']:>7.3g} ({group['with_warmup']:>5.3g}){group['rhat']:>6.2f}"


def print_cell(name: str, found: Mapping[str, Any]) -> None:
    """One row of the second part."""
    print(
        f"{name:<45}{found['warm_seconds']:>8.1f}{found['draw_seconds']:>8.1f}{found['n_draws']:>7.0f}"
        f"{found['gradients']:>7.0f}{text(found['kernel'])}{text(found['predictor'])}{text(found['codes'])}",
        flush=True,
    )


def parse() -> argparse.Namespace:
    """The options; those of ``--quick`` replace them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of drawing in a cell, after warm-up")
    parser.add_argument("--warmup", type=int, default=200, help="steps of warm-up of the peers")
    parser.add_argument("--depth", type=int, default=8, help="of the trees of NUTS")
    parser.add_argument("--steps", type=int, default=30, help="of a trajectory of HMC in BlackJAX")
    parser.add_argument("--vectorised", action="store_true", help="chains of the peers side by side")
    parser.add_argument("--seeds", type=int, default=1, help="runs a cell, of which the median is reported")
    parser.add_argument("--inputs", choices=("orthogonal", "random"), default="orthogonal")
    parser.add_argument("--phis", nargs="*", choices=PHIS, default=list(PHIS))
    parser.add_argument("--temperatures", nargs="*", type=float, default=[1e-4, 1e-6])
    parser.add_argument("--starts", nargs="*", choices=("prior", "theory"), default=["prior", "theory"])
    parser.add_argument("--methods", nargs="*", help="part of their names; all unless given")
    parser.add_argument(
        "--repeats", type=int, default=50, help="of a gradient, of which the least time counts"
    )
    parser.add_argument("--quick", action="store_true", help="a small network, for a minute")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args()
    options.width, options.n_samples, options.n_inputs = 300, 100, 400
    vars(options).update(_QUICK if options.quick else {})
    return options


def main() -> None:
    """Print both tables."""
    options = parse()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before JAX counts the cores
    from sampling_jax import PEERS, bound_gradient

    methods = {
        name: run
        for name, run in {**OURS, **PEERS}.items()
        if not options.methods or any(part.lower() in name.lower() for part in options.methods)
    }
    found: dict[str, Any] = {"options": {**vars(options), "json": None}, "gradients": {}, "cells": []}
    heading = "".join(f"{group + ' ESS/s':>25}" for group in ("kernel", "predictor", "codes"))
    for phi, temperature in product(options.phis, options.temperatures):
        sizes = options.width, options.n_samples, options.n_inputs
        problem = Problem.of(phi, temperature, options.inputs, *sizes)
        case = f"{phi} T={temperature:g}"
        print(f"\n{case}, {options.inputs} inputs")
        jax_gradient = {"JAX, weights": bound_gradient(problem, noise(problem.plain))}
        found["gradients"][case] = gradients(problem, jax_gradient, options.repeats)
        print_gradients(found["gradients"][case])
        print(f"{'':<45}{'warm-up':>8}{'seconds':>8}{'draws':>7}{'grads':>7}{heading}")
        for start, (name, run) in product(options.starts, methods.items()):
            cells = [run(problem, start, seed, options).summary() for seed in range(options.seeds)]
            print_cell(f"{name}, from the {start}", combined(cells))
            found["cells"] += [
                {"case": case, "start": start, "method": name, "seed": seed, **cell}
                for seed, cell in enumerate(cells)
            ]
            if options.json is not None:  # after each cell: a long run may be cut off
                options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
