"""The laws of a sampler: what the package takes for granted of a Markov kernel."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from attrs import fields_dict

from fltheory.numerics.validation import check_instance, check_integer
from fltheory.sampler.base import Info, Sampler, State
from fltheory.testing.bent_gaussian import BentGaussian
from fltheory.testing.laws import Law, differences, hold
from fltheory.testing.ranks import SamplingProblem
from fltheory.testing.sampler_case import FEW, N_STEPS, N_WARMUP, SamplerCase, infos, tensors

if TYPE_CHECKING:
    from torch import Tensor

_SIGMAS = 5.5  # one of 30 means is beyond them once in a million checks
_LEAST_MOVE = 0.01  # of the squared distance between independent draws, within the steps of a run
_N_TRIES = 10
_NOT_A_NUMBER = -9.99e99  # stands for it where bits are compared: unlike it, it is equal to itself


def check_sampler(sampler: Sampler, problem: SamplingProblem | None = None, seed: int = 0) -> None:
    """Hold a sampler to all ``SAMPLER_LAWS``.

    Parameters
    ----------
    sampler
        What is held to them. It takes 1 to 4 seconds for most; 14 for ``Tempering`` with its 8 levels,
        and 35 for ``NUTS``, whose 4000 chains wait for the longest trajectory: smaller settings are faster.
    problem
        Where: a target that can be drawn from exactly. By default a bent Gaussian in four dimensions of
        scales 0.25 to 1, with a ``gaussian_factor``, softer versions and two ``blocks``.
    seed
        Of all random numbers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    LawViolation
        An ``AssertionError`` that says which laws fail and how.

    Notes
    -----
    The law of invariance starts 4000 chains at exact draws and compares means and variances, over the 30
    steps that follow, with those of the target: at first, and after warm-up. It asks for no
    reversibility; those that are reversible can be tested exactly by ``rank_test``. A mean off by 0.02 to
    0.08 standard deviations is seen, or a variance by 4 to 17 %, the less the faster the chains move.
    Samplers that are biased on purpose, like ``Langevin``, break it unless their bias is below that.
    What a state remembers has to be learned or in equilibrium from the start, whatever the positions:
    ``reminded`` brings what depends on them up to date. The copies of ``Tempering`` are not, but on the
    default problem that is too little to be seen.

    Examples
    --------
    A random walk with a Metropolis test:

    >>> import torch
    >>> from attrs import evolve, frozen
    >>> from fltheory.sampler.base import Info, Sampler, State, standard_normal
    >>> from fltheory.testing import check_sampler
    >>> @frozen
    ... class RandomWalk(Sampler):
    ...     step_size: float = 0.5
    ...
    ...     def init(self, target, x, generator):
    ...         return State.at(target, x)
    ...
    ...     def step(self, target, state, generator):
    ...         x = state.position + self.step_size * standard_normal(state.position, generator)
    ...         proposal = State(x, *target.value_and_gradient(x))
    ...         gain = (proposal.log_density - state.log_density).nan_to_num(nan=-torch.inf)
    ...         acceptance = gain.exp().clamp(max=1.0)
    ...         accepted = torch.empty_like(acceptance).uniform_(generator=generator) < acceptance
    ...         size = torch.full_like(gain, self.step_size)
    ...         one = torch.ones_like(gain, dtype=torch.int64)
    ...         info = Info(acceptance, accepted, gain.isinf(), -state.log_density, one, size)
    ...         return state.moved(accepted, proposal), info
    >>> check_sampler(RandomWalk())
    """
    sampler = check_instance("sampler", sampler, Sampler)
    problem = check_instance("problem", BentGaussian() if problem is None else problem, SamplingProblem)
    case = SamplerCase(sampler, problem, check_integer("seed", seed, minimum=0))
    hold(case, SAMPLER_LAWS, f"the sampler {sampler!r}")


# The laws ----------------------------------------------------------------------------------------


def _wrong_starts(case: SamplerCase) -> Iterator[str]:
    yield from _unequal("position", case.start.position, case.drawn.position)
    yield from _inconsistent(case, case.start, "the state of init")
    for name, value in tensors(case.start).items():
        if type(value).__module__.partition(".")[0] != "torch":
            yield f"{name} of the state of init is of type {type(value).__name__}, expected a torch tensor"


def _wrong_states(case: SamplerCase) -> Iterator[str]:
    """Densities and gradients are those of the position, after proposals were accepted and refused."""
    for stage, state in case.stages:
        for k in range(_N_TRIES):
            state, _, _ = case.step(state)
            yield from _inconsistent(case, state, f"{stage}, the state after {k + 1} steps")


def _wrong_reports(case: SamplerCase) -> Iterator[str]:
    for stage, state in case.stages:
        for info in infos(case.step(state)[1]):
            yield from (f"{stage}, {found}" for found in _wrong_report(info))


def _wrong_report(info: Info) -> Iterator[str]:
    for name in fields_dict(Info).keys() - {"parts", "inner"}:
        shape = tuple(getattr(info, name).shape)
        if shape != (FEW,):
            yield f"{name} has shape {shape}, expected ({FEW},), one entry a chain"
    for name, kind in (("accepted", "bool"), ("diverged", "bool"), ("n_steps", "int64")):
        if str(getattr(info, name).dtype) != f"torch.{kind}":
            yield f"{name} has dtype {getattr(info, name).dtype}, expected torch.{kind}"
    if not bool(((info.acceptance >= 0) & (info.acceptance <= 1)).all()):
        yield f"acceptance is {info.acceptance.tolist()}, expected probabilities"
    if not bool((info.n_steps >= 0).all()):
        yield f"n_steps is {info.n_steps.tolist()}, expected numbers of gradients"


def _couplings(case: SamplerCase) -> Iterator[str]:
    """Move one chain, or lose it: the others must not notice.

    Unless that changed how many random numbers were drawn, after which the others' are not the same.
    """
    for stage, state in case.stages:
        expected, _, drawn = case.step(state)
        for c in range(FEW):
            for what, x in _changed(state.position, c):
                found, _, drawn_now = case.step(case.elsewhere(state, x))
                if (drawn_now == drawn).all():
                    others = [i for i in range(FEW) if i != c]
                    label = f"{stage}, with chain {c} {what}, the position of the others"
                    yield from _unequal(label, found.position[others], expected.position[others])


def _changed(x: "Tensor", c: int) -> Iterator[tuple[str, "Tensor"]]:
    for what, shift in (("moved", 0.1), ("at NaN", math.nan)):
        changed = x.clone()
        changed[c] += shift
        yield what, changed


def _irreproducible(case: SamplerCase) -> Iterator[str]:
    import torch

    for stage, state in case.stages:
        before = torch.random.get_rng_state()
        expected = tensors(case.step(state)[0])
        if not bool((torch.random.get_rng_state() == before).all()):
            yield f"{stage}, a step draws from the global generator of torch, not from its own"
        for name, value in tensors(case.step(state)[0]).items():
            yield from _unequal(f"{stage}, {name} after the same step again", value, expected[name])


def _forgetful(case: SamplerCase) -> Iterator[str]:
    """A state written down and read back goes on in the same way, whatever the sampler did meanwhile."""
    for stage, state in case.stages:
        expected = tensors(case.step(state)[0])
        used, other = case.sampler, case.elsewhere(state, state.position.flip(0))
        for _ in range(3):
            other = used.adapt(case.target, *used.step(case.target, other, case.generator(4)), 1)
        memory = {name: value.clone() for name, value in state.memory.items()}
        copied = State(state.position.clone(), state.log_density.clone(), state.gradient.clone(), memory)
        for name, value in tensors(case.step(copied, used)[0]).items():
            yield from _unequal(f"{stage}, {name} after a step from a copy", value, expected[name])


def _intrusions(case: SamplerCase) -> Iterator[str]:
    for stage, state in case.stages:
        before = {name: value.clone() for name, value in tensors(state).items()}
        new, info, _ = case.step(state)
        case.sampler.settle(case.target, case.sampler.adapt(case.target, new, info, 1))
        case.sampler.refresh(case.target, state)
        for name, value in tensors(state).items():
            yield from _unequal(f"{stage}, {name} of the state passed in", value, before[name])


def _wrong_warmup(case: SamplerCase) -> Iterator[str]:
    state, info, _ = case.step(case.start)
    adapted = case.sampler.adapt(case.target, state, info, 1)
    after = {"adapt": adapted, "settle": case.sampler.settle(case.target, adapted)}
    after["refresh"] = case.sampler.refresh(case.target, adapted)
    for what, new in after.items():
        yield from _unequal(f"the position after {what}", new.position, state.position)
        yield from _inconsistent(case, new, f"the state after {what}")


def _wrong_precision(case: SamplerCase) -> Iterator[str]:
    state = case.sampler.init(case.target, case.drawn.position.float(), case.generator(1))
    for iteration in range(1, N_WARMUP + 1):
        state, info, _ = case.step(state)
        state = case.sampler.adapt(case.target, state, info, iteration)
    for name, value in tensors(case.sampler.settle(case.target, state)).items():
        if value.is_floating_point() and str(value.dtype) != "torch.float32":
            yield f"from positions in single precision, {name} has dtype {value.dtype}"
        if not bool(value.isfinite().all()):
            yield f"in single precision, {name} is not finite"


def _drift(case: SamplerCase) -> Iterator[str]:
    for stage, run in case.runs.items():
        for name, expected in case.reference.items():
            found = run.averages[name]
            error = math.hypot(*(float(v.std()) / math.sqrt(len(v)) for v in (found, expected)))
            shift = float(found.mean() - expected.mean())
            if not abs(shift) <= _SIGMAS * error:
                yield (
                    f"{stage}, {N_STEPS} steps from exact draws change {name} by "
                    f"{shift / float(expected.std()):+.2g} of its standard deviation: "
                    f"{abs(shift) / error:.3g} standard errors"
                )


def _standstill(case: SamplerCase) -> Iterator[str]:
    for stage, run in case.runs.items():
        least, coordinate = float(run.moved.min()), int(run.moved.argmin())
        if not least >= _LEAST_MOVE:
            yield (
                f"{stage}, coordinate {coordinate} moves by {least:.2g} of the squared distance of "
                f"independent draws within {N_STEPS} steps, expected at least {_LEAST_MOVE}"
            )


SAMPLER_LAWS: tuple[Law, ...] = (
    Law("start", "starts where it is told, with a memory of tensors", _wrong_starts),
    Law("state", "returns states with the density and gradient of their positions", _wrong_states),
    Law("report", "reports one number a chain, and acceptance as a probability", _wrong_reports),
    Law("chains", "does not mix chains", _couplings),
    Law("reproducible", "does the same with the same generator, and draws from no other", _irreproducible),
    Law("memory", "goes on from the tensors of a state, and remembers nothing elsewhere", _forgetful),
    Law("purity", "leaves the state that is passed in as it is", _intrusions),
    Law("warm-up", "learns without moving", _wrong_warmup),
    Law("precision", "works in single precision", _wrong_precision),
    Law("invariance", "leaves the target invariant", _drift),
    Law("motion", "moves along every coordinate", _standstill),
)
"""What ``check_sampler`` holds a sampler to."""


# What they need ----------------------------------------------------------------------------------


def _inconsistent(case: SamplerCase, state: State, what: str) -> Iterator[str]:
    value, gradient = case.target.value_and_gradient(state.position)
    yield from differences(f"{what}: log_density", state.log_density, value, 1e-9 * (1 + value.abs()))
    yield from differences(f"{what}: gradient", state.gradient, gradient, 1e-9 * (1 + gradient.abs()))


def _unequal(what: str, actual: "Tensor", expected: "Tensor") -> Iterator[str]:
    """Every bit."""
    if actual.dtype != expected.dtype:
        yield f"{what} has dtype {actual.dtype}, expected {expected.dtype}"
    a, e = (np.nan_to_num(v.double().numpy(), nan=_NOT_A_NUMBER) for v in (actual, expected))
    yield from differences(what, a, e, 0.0)
