"""From a model to samples: which coordinates, where to start, how long to warm up."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from fltheory.model import Model
from fltheory.network.chains import Chains
from fltheory.network.reduction import Reduction
from fltheory.network.samples import Continuation, PosteriorSamples
from fltheory.network.starts import Start, positions
from fltheory.network.target import IntegratedTarget, NetworkTarget, WeightTarget
from fltheory.numerics.validation import (
    Array,
    check_array,
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    describe,
)
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC

_DEFAULT_WARMUP = 200
_COORDINATES: Mapping[str, tuple[Callable[[Model], Reduction], type[NetworkTarget]]] = {
    "auto": (Reduction.of, IntegratedTarget),
    "integrated": (Reduction.of, IntegratedTarget),
    "preactivations": (Reduction.of, WeightTarget),
    "hidden weights": (Reduction.none, IntegratedTarget),
    "weights": (Reduction.none, WeightTarget),
}
_DTYPES = {"float64": torch.float64, "float32": torch.float32}


def sample_network(
    model: Model,
    sampler: Sampler | None = None,
    *,
    n_draws: int = 200,
    n_chains: int = 4,
    n_warmup: int | None = None,
    start: Start = "prior",
    seed: int = 0,
    coordinates: str = "auto",
    device: str = "cpu",
    dtype: str = "float64",
    thin: int = 1,
    progress: bool | None = None,
    targets: object = None,
) -> PosteriorSamples:
    """Networks of finite width, drawn from the posterior (2).

    Parameters
    ----------
    model
        The network and its task.
    sampler
        The Markov kernel; ``HMC()`` if None.
    n_draws, n_chains, thin
        D draws a chain, C chains, Markov steps a draw.
    n_warmup
        Markov steps before the first draw; None: 200, cooling included.
    start
        "prior": independent draws from the prior, cooled down to the temperature of the model.
        Earlier samples of networks of the same shapes: their last draws, as they are. Neurons, one
        network of one hidden layer a chain.
    coordinates
        Of the first layer, what the training inputs see of it ("integrated", "preactivations") or all
        weights ("hidden weights", "weights"); the readout integrated out and drawn exactly
        ("integrated", "hidden weights") or a coordinate, T > 0 ("preactivations", "weights"). "auto"
        is "integrated".
    targets
        Y in place of the task's: (P, m), or an array (C, P, m) for one set a chain.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; at T = 0 for a width below P (naming ``width``), and for
        coordinates with readouts.
    """
    check_flag("progress", progress, optional=True)
    check_instance("model", model, Model)
    sampler = check_instance("sampler", HMC() if sampler is None else sampler, Sampler)
    n_chains = check_integer("n_chains", n_chains)
    n_draws = check_integer("n_draws", n_draws)
    n_warmup = check_integer("n_warmup", _DEFAULT_WARMUP if n_warmup is None else n_warmup, minimum=0)
    seed = check_integer("seed", seed, minimum=0, maximum=2**63 - 1)
    reduce, kind = _COORDINATES[check_choice("coordinates", coordinates, _COORDINATES)]
    precision = _DTYPES[check_choice("dtype", dtype, _DTYPES)]
    y = _check_targets(model, targets, n_chains)
    _check_zero_temperature(model, kind)
    reduction = reduce(model)
    target = kind(reduction.model, targets=y, device=_check_device(device), dtype=precision)
    chains = Chains(target, sampler, check_integer("thin", thin))
    ready = chains.warm_up(positions(target, reduction, start, n_chains), n_warmup, seed, progress)
    draws, end = chains.draw(ready, n_draws, progress)
    seeds = tuple(np.random.SeedSequence(seed).generate_state(n_chains).tolist())
    return PosteriorSamples(model, reduction, draws, seeds, y, Continuation(chains, end))


def _check_targets(model: Model, targets: object, n_chains: int) -> Array:
    if targets is None:
        return model.task.targets
    per_chain = isinstance(targets, np.ndarray | list | tuple) and np.asarray(targets, dtype=object).ndim == 3
    return check_array("targets", targets, (n_chains,) * per_chain + model.task.targets.shape)


def _check_zero_temperature(model: Model, kind: type[NetworkTarget]) -> None:
    if model.temperature > 0.0:
        return
    if kind is WeightTarget:
        raise ValueError("coordinates: expected 'integrated' or 'auto' at temperature 0, got 'weights'")
    if model.width < model.task.n_samples:
        raise ValueError(
            f"width: expected at least {model.task.n_samples} neurons to fit as many inputs exactly "
            f"at temperature 0, got {model.width}"
        )


def _check_device(device: object) -> str:
    if not isinstance(device, str):
        raise TypeError(f"device: expected a string like 'cpu' or 'cuda', got {describe(device)}")
    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # unknown, not built in, or without data ("meta")
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected a device torch can use, got {device!r} ({reason})") from None
    return device
