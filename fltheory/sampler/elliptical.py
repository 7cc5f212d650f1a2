"""Moves along ellipses through a Gaussian factor of the target: no gradient needed."""

import math

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.numerics.validation import checked
from fltheory.sampler.adaptation import AdaptiveSampler, StepSize, check_fraction
from fltheory.sampler.base import (
    Info,
    Sampler,
    State,
    Target,
    factor_of,
    half_square,
    metropolis,
    standard_normal,
)

_MAX_SHRINKS = 200  # the bracket is then below 1e-30


@frozen
class EllipticalSlice(Sampler):
    """Elliptical slice sampling (Murray, Adams & MacKay 2010). A step is reversible.

    pi(x) = N(x | 0, s^2) L(x): a point is drawn on the ellipse x cos(angle) + v sin(angle), v a draw
    from the Gaussian, where L is above a level drawn below L(x). It has nothing to tune, and moves
    in every step. A chain where the density is not finite stays where it is and counts as diverged.

    Raises
    ------
    ValueError
        By ``init``, if the target has no ``gaussian_factor``.
    RuntimeError
        By ``step``, if no point is found: the density is not a function of the position alone.
    """

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        factor_of(target, x)
        return State.at(target, x)

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        x, factor = state.position, factor_of(target, state.position)
        v = factor * standard_normal(x, generator)
        # all drawn at once: how many a chain takes must not change what the others are given
        uniform = _uniform(_MAX_SHRINKS + 1, state.log_density, generator)
        level = _log_likelihood(target, x, factor) + torch.log1p(-uniform[0])
        movable = level.isfinite()
        x = _shrink(target, x, v, level, uniform[1:], movable)
        value, gradient = target.value_and_gradient(x)
        count, none = torch.ones_like(value, dtype=torch.int64), torch.full_like(value, torch.nan)
        info = Info(movable.to(value.dtype), movable, ~movable, -state.log_density, count, none)
        return evolve(state, position=x, log_density=value, gradient=gradient), info


def _shrink(target: Target, x: Tensor, v: Tensor, level: Tensor, uniform: Tensor, movable: Tensor) -> Tensor:
    """Points of the ellipses with a likelihood above ``level`` (C,), where ``movable`` (C,).

    ``uniform``, shape (n, C), are the numbers to draw angles from: the first from a full turn, then from
    brackets that shrink towards x, at angle 0.
    """
    factor = factor_of(target, x)
    searching, found = movable, x
    high = 2.0 * math.pi * uniform[0]
    low = high - 2.0 * math.pi
    angle = high
    for u in uniform[1:]:
        on_ellipse = x * angle.cos()[:, None] + v * angle.sin()[:, None]
        found = torch.where(searching[:, None], on_ellipse, found)
        searching = searching & ~(_log_likelihood(target, found, factor) >= level)
        if not bool(searching.any()):
            return found
        low, high = torch.where(angle < 0.0, angle, low), torch.where(angle < 0.0, high, angle)
        angle = low + u * (high - low)
    raise RuntimeError(
        f"log_density: expected a function of the position alone, got no point as likely as the present "
        f"one in {_MAX_SHRINKS - 1} tries in {int(searching.sum())} of {len(x)} chains"
    )


@frozen
class PreconditionedCrankNicolson(AdaptiveSampler):
    """Steps along ellipses with a Metropolis test (Cotter et al. 2013, pCN). A step is reversible.

    From pi(x) = N(x | 0, s^2) L(x) it proposes (x + eps s xi) / sqrt(1 + eps^2), xi white noise, which
    leaves the Gaussian invariant, and accepts with min(1, L' / L).

    Parameters
    ----------
    step_size
        Initial eps; each chain learns its own in warm-up.
    target_acceptance
        Mean acceptance probability that warm-up aims at.

    Raises
    ------
    ValueError
        By ``init``, if the target has no ``gaussian_factor``.
    """

    target_acceptance: float = field(
        default=0.3, kw_only=True, converter=checked(check_fraction, exclusive=True)
    )

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        factor_of(target, x)
        return super().init(target, x, generator)

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        x, size = state.position, StepSize.recalled(state.memory).current
        factor, eps = factor_of(target, x), size[:, None]
        x_new = (x + eps * factor * standard_normal(x, generator)) / torch.hypot(eps, torch.ones_like(eps))
        value, gradient = target.value_and_gradient(x_new)
        gain = value - state.log_density + half_square(x_new, factor) - half_square(x, factor)
        diverged = ~(value.isfinite() & gradient.isfinite().all(1))
        acceptance, accepted = metropolis(torch.where(diverged, -torch.inf, gain), generator)
        count = torch.ones_like(value, dtype=torch.int64)
        info = Info(acceptance, accepted, diverged, -state.log_density, count, size)
        return state.moved(accepted, State(x_new, value, gradient)), info


def _log_likelihood(target: Target, x: Tensor, factor: float | Tensor) -> Tensor:
    """log L(x) = log pi(x) - log N(x | 0, s^2), up to a constant, shape (C,)."""
    return target.log_density(x) + half_square(x, factor)


def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), shape (n, C)."""
    return torch.rand(n, len(like), generator=generator, dtype=like.dtype, device=like.device)
