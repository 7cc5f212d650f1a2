"""From a model to samples: which coordinates, where to start, how long to warm up."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from attrs import evolve
from torch import Tensor

from fltheory.model import Model
from fltheory.network.draws import Draws
from fltheory.network.moves.base import Advice
from fltheory.network.opening import Opening
from fltheory.network.plan import COORDINATES, DTYPES, Plan
from fltheory.network.record import KEEP
from fltheory.network.reduction import Reduction
from fltheory.network.runs import check_jobs, gathered, run_groups
from fltheory.network.samples import Continuation, PosteriorSamples
from fltheory.network.starts import Network, Start, in_words, positions
from fltheory.network.target import WeightTarget
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

Advise = Callable[[Sampler | None, Reduction], Advice]
DrawNeurons = Callable[[Sequence[int]], Sequence[Network]]


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
    keep: str = "all",
    chains_per_batch: int | None = None,
    checkpoint: "str | PathLike[str] | None" = None,
    n_jobs: int = 1,
    progress: bool | None = None,
    targets: object = None,
    advise: Advise | None = None,
    draw_neurons: DrawNeurons | None = None,
) -> PosteriorSamples:
    """Networks of finite width, drawn from the posterior (2).

    Parameters
    ----------
    model
        The network and its task.
    sampler
        The Markov kernel; if None, as advised, else ``HMC()``.
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
        ("integrated", "hidden weights") or a coordinate ("preactivations", "weights": for T > 0, and without
        moves for single neurons). "auto" is "integrated".
    keep
        "all": the networks; "readouts": their readouts only; "statistics": neither. With the latter two
        what is asked of the samples is averaged while sampling, on the inputs of the task, at a memory
        that hardly grows with ``n_draws``.
    chains_per_batch
        Chains that move together, with a random generator of their own; None: all. It decides the numbers
        drawn, ``n_jobs`` does not.
    checkpoint
        A folder where the run is saved: after the warm-up, at least once a minute, and at the end. Calling
        again with the same arguments goes on where it was saved, to the same numbers as without a break;
        with more ``n_draws`` it is lengthened. What was advised is kept there too.
    n_jobs
        Processes, one thread each, among which the batches are divided; -1: one a core. Within ``with
        joblib.parallel_config(backend=...)`` they are those of that backend, a cluster for instance.
    progress
        Whether to show progress; None: on a terminal.
    targets
        Y in place of the task's: (P, m), or an array (C, P, m) for one set a chain.
    advise
        Called with the sampler, and with the network as the chains know it, where the readout is integrated
        out, once all arguments are checked: how to sample, with moves for single neurons.
    draw_neurons
        Called with one seed a chain: networks for ``start="theory"``. Neither is called again by a run that
        goes on from its checkpoint.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; at T = 0 for a width below P (naming ``width``), and for
        coordinates with readouts.
    MemoryError
        If the draws would take more than half of the machine's memory.
    CheckpointError
        If ``checkpoint`` is of another run, naming what differs, or damaged.
    """
    check_flag("progress", progress, optional=True)
    check_instance("model", model, Model)
    check_instance("sampler", sampler, Sampler, optional=True)
    n_chains = check_integer("n_chains", n_chains)
    n_draws = check_integer("n_draws", n_draws)
    n_warmup = check_integer("n_warmup", _DEFAULT_WARMUP if n_warmup is None else n_warmup, minimum=0)
    seed = check_integer("seed", seed, minimum=0, maximum=2**63 - 1)
    check_choice("coordinates", coordinates, COORDINATES)
    check_choice("dtype", dtype, DTYPES)
    y = _check_targets(model, targets, n_chains)
    _check_zero_temperature(model, coordinates)
    check_choice("keep", keep, KEEP)
    size = check_integer("chains_per_batch", n_chains if chains_per_batch is None else chains_per_batch)
    n_jobs = check_jobs("n_jobs", n_jobs)
    folder, thin = _check_folder(checkpoint), check_integer("thin", thin)
    device = _check_device(device)
    first = sampler or HMC()
    plan = Plan(model, first, y, n_chains, seed, coordinates, device, dtype, thin, keep, size)
    plan.check_memory(n_draws)
    opening = Opening(
        plan,
        sampler,
        partial(_advice, plan, sampler, advise),
        _beginning(plan, start, draw_neurons),
    )
    settled = opening.settle() if folder is None else opening.at(folder, in_words(start), n_warmup)
    advice = settled.advice
    plan = evolve(
        plan,
        sampler=advice.sampler,
        moves=advice.moves,
        softest=advice.softest,
        reduction=settled.reduction,
    )
    outcomes = run_groups(plan.groups(settled.begin, n_draws, n_warmup, folder), n_jobs, progress)
    rows, means, moments = gathered(outcomes)
    continuation = Continuation(plan, moments)
    return PosteriorSamples(model, plan.reduction, Draws.of(rows, means), plan.seeds, y, continuation)


def _advice(plan: Plan, sampler: Sampler | None, advise: Advise | None) -> Advice:
    """How to sample: as advised where the readout is integrated out."""
    if advise is None or COORDINATES[plan.coordinates][1] is WeightTarget:
        return Advice(plan.sampler)
    return advise(sampler, plan.reduction)


def _beginning(plan: Plan, start: Start, draw: DrawNeurons | None) -> Callable[[], int | Tensor]:
    """What finds where to begin. What does not wait for the theory is found, and refused, at once."""

    def found(start: Start) -> int | Tensor:
        return positions(plan.target, plan.reduction, start, plan.n_chains, plan.seed)

    if not isinstance(start, str) or check_choice("start", start, ("prior", "theory")) == "prior":
        begin = found(start)
        return lambda: begin
    if draw is None:
        raise ValueError("start: expected 'prior' or earlier samples where there is no theory, got 'theory'")
    seeds = np.random.SeedSequence(plan.seed).spawn(1)[0].generate_state(plan.n_chains).tolist()
    return lambda: found(draw(seeds))


def _check_folder(checkpoint: object) -> Path | None:
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | PathLike):
        raise TypeError(f"checkpoint: expected the path of a folder, got {describe(checkpoint)}")
    return Path(os.fsdecode(checkpoint))


def _check_targets(model: Model, targets: object, n_chains: int) -> Array:
    if targets is None:
        return model.task.targets
    per_chain = isinstance(targets, np.ndarray | list | tuple) and np.asarray(targets, dtype=object).ndim == 3
    return check_array("targets", targets, (n_chains,) * per_chain + model.task.targets.shape)


def _check_zero_temperature(model: Model, coordinates: str) -> None:
    if model.temperature > 0.0:
        return
    if COORDINATES[coordinates][1] is WeightTarget:
        raise ValueError(
            f"coordinates: expected 'integrated' (or 'auto') or 'hidden weights' at temperature 0, got "
            f"{coordinates!r}"
        )
    inputs = model.task.inputs
    if model.width < len(inputs):
        raise ValueError(
            f"width: expected at least {len(inputs)} neurons to fit as many inputs exactly "
            f"at temperature 0, got {model.width}"
        )
    n_seen = np.linalg.matrix_rank(inputs) if model.nonlinearity.is_linear else len(np.unique(inputs, axis=0))
    if n_seen < len(inputs):
        kind = "linearly independent" if model.nonlinearity.is_linear else "different"
        raise ValueError(
            f"inputs: expected {len(inputs)} {kind} training inputs at temperature 0, got {n_seen} of them: "
            f"the kernel of their features is singular"
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
