"""What samplers learn in warm-up: step sizes, and how widely each coordinate varies."""

import math
from collections.abc import Mapping
from typing import Self

import torch
from attrs import field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_flag, check_real, checked
from fltheory.sampler.base import Info, Sampler, State, Target


@frozen(eq=False)
class StepSize:
    """One step size a chain and its dual averaging (Hoffman & Gelman 2014, section 3.2).

    Attributes
    ----------
    current
        The step size in use, shape (C,).
    log_average, log_anchor, shortfall
        Weighted mean of the logarithm so far, the value shrunk towards, and the mean of goal minus
        acceptance, each (C,).
    """

    current: Tensor
    log_average: Tensor
    log_anchor: Tensor
    shortfall: Tensor

    @classmethod
    def constant(cls, current: Tensor) -> Self:
        """A start at these step sizes, shape (C,)."""
        log = current.log()
        return cls(current, log, log, torch.zeros_like(log))

    def updated(self, acceptance: Tensor, iteration: int, goal: float) -> "StepSize":
        """After one iteration (counted from 1, where averaging starts afresh) with ``acceptance`` (C,)."""
        gamma, t0, kappa = 0.05, 10.0, 0.75
        past = StepSize.constant(self.current) if iteration == 1 else self
        shortfall = past.shortfall + (goal - acceptance - past.shortfall) / (iteration + t0)
        log_current = past.log_anchor - math.sqrt(iteration) / gamma * shortfall
        log_average = past.log_average + iteration**-kappa * (log_current - past.log_average)
        return StepSize(log_current.exp(), log_average, past.log_anchor, shortfall)

    def settled(self) -> "StepSize":
        """The average, to be kept from here on."""
        return StepSize.constant(self.log_average.exp())

    @classmethod
    def recalled(cls, memory: Mapping[str, Tensor]) -> Self:
        """From the memory of a state."""
        return cls(*(memory[f"step_size_{name}"] for name in _STEP_SIZE_FIELDS))

    @property
    def memory(self) -> dict[str, Tensor]:
        """For the memory of a state."""
        return {f"step_size_{name}": getattr(self, name) for name in _STEP_SIZE_FIELDS}


_STEP_SIZE_FIELDS = ("current", "log_average", "log_anchor", "shortfall")


@frozen(eq=False)
class Scales:
    """One scale a coordinate, learned from the positions of all chains.

    They are standard deviations over their geometric mean, drawn towards 1 where few positions were
    seen, so that nothing changes for a target that varies alike in all coordinates. Iteration t has
    weight t: what came before the chains arrived is forgotten.

    Attributes
    ----------
    current
        The scales in use, shape (dimension,).
    mean, variance
        Weighted moments of the positions since iteration 1, pooled over chains, each (dimension,).
    """

    current: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def equal(cls, x: Tensor) -> Self:
        """A start with all scales 1 for positions like ``x``, shape (C, dimension)."""
        zero = torch.zeros_like(x[0])
        return cls(torch.ones_like(zero), zero, zero)

    def updated(self, x: Tensor, iteration: int) -> "Scales":
        """After one iteration (counted from 1, where the moments start afresh) that ended at ``x``.

        Chains at positions that are not finite are left out.
        """
        x = x[x.isfinite().all(1)]
        if len(x) == 0:
            return self
        weight = 2.0 / (iteration + 1)
        deviation = x - self.mean
        shift = deviation.mean(0)
        spread = (deviation - shift).square().mean(0) + (1.0 - weight) * shift.square()
        variance = (1.0 - weight) * self.variance + weight * spread
        moments = Scales(self.current, self.mean + weight * shift, variance)
        return moments._used(iteration * len(x)) if iteration >= _FIRST_USE else moments

    def _used(self, n_positions: int) -> "Scales":
        """The scales of these moments, in use: at least 1e-6 of the widest, or 1 if all are 0."""
        log = self.variance.clamp(min=1e-12 * float(self.variance.max())).log() / 2
        current = (n_positions / (n_positions + 5.0) * (log - log.mean())).exp()
        return Scales(current.nan_to_num(nan=1.0), self.mean, self.variance)

    @classmethod
    def recalled(cls, memory: Mapping[str, Tensor]) -> Self:
        """From the memory of a state."""
        return cls(*(memory[f"scales_{name}"] for name in _SCALES_FIELDS))

    @property
    def memory(self) -> dict[str, Tensor]:
        """For the memory of a state."""
        return {f"scales_{name}": getattr(self, name) for name in _SCALES_FIELDS}


_SCALES_FIELDS = ("current", "mean", "variance")
_FIRST_USE = 20  # iterations: how long a warm-up will be is not known


def check_fraction(name: str, value: object, *, exclusive: bool = False) -> float:
    """From 0 (above it if ``exclusive``) to below 1."""
    number = check_real(name, value, minimum=0.0, exclusive=exclusive)
    if number >= 1.0:
        raise ValueError(f"{name}: expected a real number below 1, got {number:g}")
    return number


@frozen(kw_only=True)
class AdaptiveSampler(Sampler):
    """A sampler whose step sizes are learned in warm-up, one a chain. A subclass implements ``step``.

    Parameters
    ----------
    step_size
        Initial step size.
    target_acceptance
        Mean acceptance probability that warm-up aims at.
    """

    step_size: float = field(default=0.1, converter=checked(check_real, minimum=0.0, exclusive=True))
    target_acceptance: float = field(default=0.8, converter=checked(check_fraction, exclusive=True))

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        state = State.at(target, x)
        size = StepSize.constant(torch.full_like(state.log_density, self.step_size))
        return state.remembering(**size.memory)

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        size = StepSize.recalled(state.memory)
        return state.remembering(**size.updated(info.acceptance, iteration, self.target_acceptance).memory)

    def settle(self, target: Target, state: State) -> State:
        return state.remembering(**StepSize.recalled(state.memory).settled().memory)


@frozen(kw_only=True)
class ScaledSampler(AdaptiveSampler):
    """One that can also learn a diagonal preconditioner. A subclass implements ``step``.

    Parameters
    ----------
    learn_scales
        Whether steps are in proportion to the scale of each coordinate, learned in warm-up from all
        chains of the batch.
    """

    learn_scales: bool = field(default=False, converter=checked(check_flag))

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        state = super().init(target, x, generator)
        return state.remembering(**Scales.equal(x).memory) if self.learn_scales else state

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        state = super().adapt(target, state, info, iteration)
        if not self.learn_scales:
            return state
        scales = Scales.recalled(state.memory).updated(state.position, iteration)
        return state.remembering(**scales.memory)

    def steps(self, memory: Mapping[str, Tensor]) -> Tensor:
        """The step in each coordinate, shape (C, dimension), or (C, 1) if it is the same in all."""
        size = StepSize.recalled(memory).current[:, None]
        return size * Scales.recalled(memory).current if self.learn_scales else size
