"""What a sampler sees, ``Target``, and what a sampler is, ``Sampler``. Nothing here knows a network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from attrs import evolve, frozen
from torch import Tensor

from fltheory.numerics.validation import Shape, check_integer, describe, fits, shape_text

LogDensity = Callable[[Tensor], Tensor]


class Target(ABC):
    """An unnormalised density on R^dimension, evaluated for a batch of C chains at once.

    A subclass must implement ``dimension`` and ``log_density``. It may implement
    ``value_and_gradient``, whose default is automatic differentiation. Chains must not mix: entry
    c of the result depends on row c of ``x`` alone.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a position."""

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """log pi(x) up to a constant: (C, dimension) -> (C,); -inf outside the support."""

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log pi(x), shape (C,), and its gradient, shape (C, dimension)."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = self.log_density(leaf)
            if not value.requires_grad:
                raise ValueError("log_density: expected a function that torch can differentiate, got none")
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    @staticmethod
    def from_function(dimension: int, log_density: LogDensity) -> "Target":
        """The target of any differentiable function from (C, dimension) to (C,).

        Raises
        ------
        TypeError, ValueError
            If ``dimension`` is no positive integer or ``log_density`` cannot be called.
        """
        if not callable(log_density):
            raise TypeError(f"log_density: expected a function, got {describe(log_density)}")
        return _FunctionTarget(check_integer("dimension", dimension), log_density)


@frozen
class _FunctionTarget(Target):
    dimension: int
    _function: LogDensity

    def log_density(self, x: Tensor) -> Tensor:
        return self._function(x)


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


@frozen(eq=False)
class State:
    """Where C chains are: all a sampler needs to go on from here.

    Attributes
    ----------
    position
        x, shape (C, dimension).
    log_density, gradient
        log pi(x), shape (C,), and its gradient, shape (C, dimension).
    step_size
        One a chain.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor
    step_size: StepSize

    @classmethod
    def at(cls, target: Target, x: Tensor, step_size: float) -> Self:
        """The state at positions ``x``, shape (C, dimension): the place where a target is checked.

        Raises
        ------
        TypeError, ValueError
            If ``x``, or what the target says of it, is no real floating-point tensor of its shape, or
            the density is not differentiable.
        """
        _check_tensor("x", x, ("C", target.dimension))
        _check_tensor("log_density (its result)", target.log_density(x), (len(x),))
        value, gradient = target.value_and_gradient(x)
        _check_tensor("value_and_gradient (its value)", value, (len(x),))
        _check_tensor("value_and_gradient (its gradient)", gradient, tuple(x.shape))
        return cls(x, value, gradient, StepSize.constant(torch.full_like(x[:, 0], step_size)))

    def moved(self, accepted: Tensor, proposal: "State") -> "State":
        """``proposal`` in the chains where ``accepted`` (C,), this state in the others."""
        return State(
            torch.where(accepted[:, None], proposal.position, self.position),
            torch.where(accepted, proposal.log_density, self.log_density),
            torch.where(accepted[:, None], proposal.gradient, self.gradient),
            self.step_size,
        )


@frozen(eq=False)
class Info:
    """What happened in one step, one entry a chain.

    Attributes
    ----------
    acceptance
        The probability with which the proposal was accepted.
    accepted, diverged
        Whether it was, and whether its energy was not finite or off by more than 1000.
    energy
        The Hamiltonian at the start of the trajectory.
    n_steps
        Gradients evaluated.
    """

    acceptance: Tensor
    accepted: Tensor
    diverged: Tensor
    energy: Tensor
    n_steps: Tensor


class Sampler(ABC):
    """A Markov kernel that leaves any ``Target`` invariant.

    A subclass must implement ``init`` and ``step``. It may implement ``adapt`` and ``settle``,
    which are called in warm-up only; their defaults change nothing. Callers also use ``refresh``.
    """

    @abstractmethod
    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        """The state at positions ``x``, shape (C, dimension); ``State.at`` checks both arguments."""

    @abstractmethod
    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        """One Markov step of every chain."""

    def refresh(self, target: Target, state: State) -> State:
        """The same positions, seen by another target."""
        value, gradient = target.value_and_gradient(state.position)
        return evolve(state, log_density=value, gradient=gradient)

    def adapt(self, state: State, info: Info, iteration: int) -> State:
        """Learn from one step; ``iteration`` counts from 1, where learning starts afresh."""
        return state

    def settle(self, state: State) -> State:
        """Fix what was learned, before the first draw."""
        return state


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _check_tensor(name: str, value: object, shape: Shape) -> None:
    """Refuse what is no real floating-point tensor of a shape that ``fits``."""
    expected = f"a real floating-point tensor of shape {shape_text(shape)}"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    came = f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected {expected}, got {came}")
    if not fits(tuple(value.shape), shape):
        raise ValueError(f"{name}: expected {expected}, got {came}")
