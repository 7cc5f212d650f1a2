"""Hamiltonian Monte Carlo: ballistic proposals along the gradient (Neal 2011)."""

import math

import torch
from attrs import field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_integer, check_real, checked
from fltheory.sampler.adaptation import StepSize
from fltheory.sampler.base import Info, Sampler, State, Target, standard_normal

_MAX_ENERGY_ERROR = 1000.0


def _check_fraction(name: str, value: object, *, exclusive: bool = False) -> float:
    """From 0 (above it if ``exclusive``) to below 1."""
    number = check_real(name, value, minimum=0.0, exclusive=exclusive)
    if number >= 1.0:
        raise ValueError(f"{name}: expected a real number below 1, got {number:g}")
    return number


@frozen
class HMC(Sampler):
    """Leapfrog trajectories with a Metropolis test.

    Parameters
    ----------
    n_leapfrog
        Mean number of leapfrog steps.
    step_size
        Initial step size; each chain learns its own in warm-up.
    target_acceptance
        Mean acceptance probability that warm-up aims at.
    jitter
        The number of steps is uniform from (1 - jitter) to (1 + jitter) times ``n_leapfrog``, drawn
        anew for each trajectory: a fixed length resonates with oscillations of the same period.
    """

    n_leapfrog: int = field(default=10, converter=checked(check_integer))
    step_size: float = field(default=0.1, converter=checked(check_real, minimum=0.0, exclusive=True))
    target_acceptance: float = field(default=0.8, converter=checked(_check_fraction, exclusive=True))
    jitter: float = field(default=0.5, converter=checked(_check_fraction))

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        size = StepSize.constant(torch.full_like(x[:, 0], self.step_size))
        return State.at(target, x, **size.memory)

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        momentum = standard_normal(state.position, generator)
        n_steps, step_size = self._draw_n_steps(generator), StepSize.recalled(state.memory).current
        proposal, end_momentum = leapfrog(target, state, momentum, step_size, n_steps)
        energy = _energy(state, momentum)
        error = _energy(proposal, end_momentum) - energy
        diverged = ~(error < _MAX_ENERGY_ERROR)  # true for NaN too
        acceptance = torch.where(diverged, 0.0, (-error).exp().clamp(max=1.0))
        uniform = torch.rand(error.shape, generator=generator, dtype=error.dtype, device=error.device)
        accepted = uniform < acceptance
        steps = torch.full_like(error, n_steps, dtype=torch.int64)
        info = Info(acceptance, accepted, diverged, energy, steps, step_size)
        return state.moved(accepted, proposal), info

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        step_size = StepSize.recalled(state.memory)
        return state.remembering(
            **step_size.updated(info.acceptance, iteration, self.target_acceptance).memory
        )

    def settle(self, target: Target, state: State) -> State:
        return state.remembering(**StepSize.recalled(state.memory).settled().memory)

    def _draw_n_steps(self, generator: torch.Generator) -> int:
        low = max(1, math.ceil(self.n_leapfrog * (1.0 - self.jitter)))
        high = math.floor(self.n_leapfrog * (1.0 + self.jitter))
        draw = torch.randint(low, high + 1, (), generator=generator, device=generator.device)
        return int(draw.item())


def leapfrog(
    target: Target, state: State, momentum: Tensor, step_size: Tensor, n_steps: int
) -> tuple[State, Tensor]:
    """Follow dx = p ds, dp = grad log pi(x) ds for ``n_steps`` steps: reversible, preserves volume.

    Parameters
    ----------
    momentum
        p, shape (C, dimension).
    step_size
        Shape (C,).

    Returns
    -------
    tuple
        The state at the end (same memory) and the momentum there.
    """
    x, p, value, gradient = state.position, momentum, state.log_density, state.gradient
    eps = step_size[:, None]  # (C, 1)
    for _ in range(n_steps):
        p = torch.addcmul(p, eps, gradient, value=0.5)  # p + eps/2 grad, in one pass
        x = torch.addcmul(x, eps, p)
        value, gradient = target.value_and_gradient(x)
        p = torch.addcmul(p, eps, gradient, value=0.5)
    return State(x, value, gradient, state.memory), p


def _energy(state: State, momentum: Tensor) -> Tensor:
    """H = -log pi(x) + |p|^2 / 2, shape (C,)."""
    return 0.5 * (momentum**2).sum(1) - state.log_density
