"""Hamiltonian Monte Carlo: ballistic proposals along the gradient (Neal 2011), and its shortest case."""

import math
from abc import abstractmethod

import torch
from attrs import field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_integer, checked
from fltheory.sampler.adaptation import ScaledSampler, StepSize, check_fraction
from fltheory.sampler.base import Info, State, Target, metropolis, standard_normal

_MAX_ENERGY_ERROR = 1000.0


@frozen
class TrajectorySampler(ScaledSampler):
    """Leapfrog trajectories with a Metropolis test. A subclass says how long they are."""

    @abstractmethod
    def draw_n_steps(self, generator: torch.Generator) -> int:
        """Leapfrog steps of a trajectory."""

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        momentum = standard_normal(state.position, generator)
        n_steps = self.draw_n_steps(generator)
        proposal, end_momentum = leapfrog(target, state, momentum, self.steps(state.memory), n_steps)
        start = energy(state, momentum)
        error = energy(proposal, end_momentum) - start
        diverged = is_divergent(error)
        acceptance, accepted = metropolis(torch.where(diverged, -torch.inf, -error), generator)
        count = torch.full_like(error, n_steps, dtype=torch.int64)
        size = StepSize.recalled(state.memory).current
        return state.moved(accepted, proposal), Info(acceptance, accepted, diverged, start, count, size)


@frozen
class HMC(TrajectorySampler):
    """Leapfrog trajectories with a Metropolis test. A step is reversible.

    Parameters
    ----------
    n_leapfrog
        Mean number of leapfrog steps.
    step_size
        Initial step size; each chain learns its own in warm-up.
    target_acceptance
        Mean acceptance probability that warm-up aims at.
    learn_scales
        Whether steps are in proportion to the scale of each coordinate, learned in warm-up from all
        chains of the batch.
    jitter
        The number of steps is uniform from (1 - jitter) to (1 + jitter) times ``n_leapfrog``, drawn
        anew in each step, one number for all chains of the batch: a fixed length resonates with
        oscillations of the same period.
    """

    n_leapfrog: int = field(default=10, converter=checked(check_integer))
    jitter: float = field(default=0.5, converter=checked(check_fraction))

    def draw_n_steps(self, generator: torch.Generator) -> int:
        low = max(1, math.ceil(self.n_leapfrog * (1.0 - self.jitter)))
        high = math.floor(self.n_leapfrog * (1.0 + self.jitter))
        draw = torch.randint(low, high + 1, (), generator=generator, device=generator.device)
        return int(draw.item())


@frozen
class MALA(TrajectorySampler):
    """The Metropolis-adjusted Langevin algorithm: HMC with one leapfrog step. A step is reversible.

    That step is x + eps^2/2 grad log pi(x) + eps p with p white noise, an Euler step of Langevin
    dynamics over the time eps^2/2, and the Metropolis test is the same (Neal 2011, section 5.2).

    Parameters
    ----------
    step_size
        Initial eps; each chain learns its own in warm-up.
    target_acceptance
        Mean acceptance probability that warm-up aims at; 0.574 is optimal in many dimensions.
    learn_scales
        Whether steps are in proportion to the scale of each coordinate, learned in warm-up from all
        chains of the batch.
    """

    target_acceptance: float = field(
        default=0.57, kw_only=True, converter=checked(check_fraction, exclusive=True)
    )

    def draw_n_steps(self, generator: torch.Generator) -> int:
        return 1


def leapfrog(
    target: Target, state: State, momentum: Tensor, steps: Tensor, n_steps: int
) -> tuple[State, Tensor]:
    """Follow dx = p ds, dp = grad log pi(x) ds for ``n_steps`` steps: reversible, preserves volume.

    Parameters
    ----------
    momentum
        p, shape (C, dimension).
    steps
        The step size in each coordinate, shape (C, dimension) or (C, 1): unequal ones are equal ones in
        coordinates x / scale.

    Returns
    -------
    tuple
        The state at the end (same memory) and the momentum there.
    """
    x, p, value, gradient = state.position, momentum, state.log_density, state.gradient
    for _ in range(n_steps):
        p = torch.addcmul(p, steps, gradient, value=0.5)  # p + eps/2 grad, in one pass
        x = torch.addcmul(x, steps, p)
        value, gradient = target.value_and_gradient(x)
        p = torch.addcmul(p, steps, gradient, value=0.5)
    return State(x, value, gradient, state.memory), p


def energy(state: State, momentum: Tensor) -> Tensor:
    """H = -log pi(x) + |p|^2 / 2, shape (C,)."""
    return 0.5 * (momentum**2).sum(1) - state.log_density


def is_divergent(error: Tensor) -> Tensor:
    """Whether an energy is off by too much, or not finite: the leapfrog steps went astray."""
    return ~(error < _MAX_ENERGY_ERROR)  # true for NaN too
