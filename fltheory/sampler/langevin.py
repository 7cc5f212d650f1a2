"""Langevin dynamics without a Metropolis test: for drift in time, not for exact averages."""

import math

import torch
from attrs import field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_real, checked, optional
from fltheory.sampler.base import Info, Sampler, State, Target, standard_normal


@frozen
class Langevin(Sampler):
    """Langevin dynamics in steps of a fixed time: **biased**, its errors vanish only with the step.

    Without friction it is overdamped, dx = grad log pi(x) ds + sqrt(2) dW in Euler-Maruyama steps, with
    errors of averages of first order in the step (``MALA`` is this step with a Metropolis test). With
    friction it is dx = p ds, dp = grad log pi(x) ds - friction p ds + sqrt(2 friction) dW in steps
    B A O A B (Leimkuhler & Matthews 2013), with errors of second order, and none in the positions of
    a Gaussian. Neither is reversible. A step to where the density or its gradient is not finite is
    refused: the chain stays and its momentum turns round.

    Parameters
    ----------
    step_size
        Time a step. It is not adapted.
    friction
        Positive; or None: overdamped.
    """

    step_size: float = field(default=0.01, converter=checked(check_real, minimum=0.0, exclusive=True))
    friction: float | None = field(
        default=None, converter=checked(optional(check_real), minimum=0.0, exclusive=True)
    )

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        state = State.at(target, x)
        if self.friction is None:
            return state
        return state.remembering(momentum=standard_normal(x, generator))

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        noise = standard_normal(state.position, generator)
        if self.friction is None:
            proposal = self._euler(target, state, noise)
        else:
            proposal = self._baoab(target, state, noise, self.friction)
        finite = proposal.log_density.isfinite() & proposal.gradient.isfinite().all(1)
        ones = torch.ones_like(state.log_density)
        kinetic = sum((0.5 * p.square().sum(1) for p in state.memory.values()), 0.0 * ones)
        info = Info(
            acceptance=ones * finite,
            accepted=finite,
            diverged=~finite,
            energy=kinetic - state.log_density,
            n_steps=ones.to(torch.int64),
            step_size=self.step_size * ones,
        )
        turned = {
            name: torch.where(finite[:, None], p, -state.memory[name]) for name, p in proposal.memory.items()
        }
        return state.moved(finite, proposal).remembering(**turned), info

    def _euler(self, target: Target, state: State, noise: Tensor) -> State:
        x = state.position + self.step_size * state.gradient + math.sqrt(2.0 * self.step_size) * noise
        return State(x, *target.value_and_gradient(x))

    def _baoab(self, target: Target, state: State, noise: Tensor, friction: float) -> State:
        half, kept = 0.5 * self.step_size, math.exp(-friction * self.step_size)
        p = state.memory["momentum"] + half * state.gradient  # B
        x = state.position + half * p  # A
        p = kept * p + math.sqrt(1.0 - kept**2) * noise  # O
        x = x + half * p  # A
        value, gradient = target.value_and_gradient(x)
        return State(x, value, gradient, {"momentum": p + half * gradient})  # B
