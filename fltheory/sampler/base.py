"""What a sampler sees, ``Target``, and what a sampler is, ``Sampler``. Nothing here knows a network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.numerics.validation import Shape, check_integer, check_real, describe, fits, shape_text

if TYPE_CHECKING:
    from fltheory.sampler.blocks import Blocks

LogDensity = Callable[[Tensor], Tensor]


class Target(ABC):
    """An unnormalised density on R^dimension, evaluated for a batch of C chains at once.

    A subclass must implement ``dimension`` and ``log_density``. It may implement
    ``value_and_gradient``, whose default is automatic differentiation, and what some samplers ask
    for: ``gaussian_factor``, ``blocks`` and ``softened``. Chains must not mix: entry c of the result
    depends on row c of ``x`` alone.
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

    @property
    def gaussian_factor(self) -> float | Tensor | None:
        """Standard deviations s, one or (dimension,), of a known factor: pi(x) = N(x | 0, s^2) L(x)."""
        return None

    @property
    def blocks(self) -> "Blocks | None":
        """Proposals for one block of coordinates given the others, where the target knows some."""
        return None

    def softened(self, level: Tensor) -> "Target":
        """The same problem made easier, one level a chain, shape (C,): from 0, this target, to 1.

        By default N(x | 0, s^2) L(x)^(1 - level), with the ``gaussian_factor``. The chains may be several
        copies of those of this target, one after the other: a target with data of its own for each chain
        must override this.

        Raises
        ------
        ValueError
            If the target knows no easier versions of itself.
        """
        if self.gaussian_factor is None:
            raise ValueError(
                f"target: expected one with softer versions of itself, or a gaussian_factor, got "
                f"{describe(self)}"
            )
        return Softened(self, level)

    @staticmethod
    def from_function(
        dimension: int, log_density: LogDensity, gaussian_factor: float | Tensor | None = None
    ) -> "Target":
        """The target of any differentiable function from (C, dimension) to (C,).

        With a ``gaussian_factor`` it has softer versions, too.

        Raises
        ------
        TypeError, ValueError
            If ``dimension`` is no positive integer, ``log_density`` cannot be called, or
            ``gaussian_factor`` is given and is no positive number or tensor (dimension,) of such.
        """
        if not callable(log_density):
            raise TypeError(f"log_density: expected a function, got {describe(log_density)}")
        dimension = check_integer("dimension", dimension)
        return _FunctionTarget(dimension, log_density, _check_factor(gaussian_factor, dimension))


@frozen(eq=False)
class _FunctionTarget(Target):
    dimension: int
    _function: LogDensity
    gaussian_factor: float | Tensor | None

    def log_density(self, x: Tensor) -> Tensor:
        return self._function(x)


@frozen(eq=False)
class Softened(Target):
    """N(x | 0, s^2) L(x)^(1 - level) of a target N(x | 0, s^2) L(x): at level 1 L no longer counts.

    Attributes
    ----------
    target
        Which one; it has a ``gaussian_factor``.
    level
        From 0 to 1, one a chain, shape (C,).
    """

    target: Target
    level: Tensor

    @property
    def dimension(self) -> int:
        return self.target.dimension

    @property
    def gaussian_factor(self) -> float | Tensor | None:
        return self.target.gaussian_factor

    def log_density(self, x: Tensor) -> Tensor:
        return self._mixed(x, self.target.log_density(x))

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.target.value_and_gradient(x)
        level, prior_gradient = self.level[:, None], -x / factor_of(self, x) ** 2
        return self._mixed(x, value), (1.0 - level) * gradient + level * prior_gradient

    def _mixed(self, x: Tensor, value: Tensor) -> Tensor:
        """log pi = (1 - level) log pi_0 + level log N; where the former is not finite, it stays so."""
        mixed = (1.0 - self.level) * value - self.level * half_square(x, factor_of(self, x))
        return torch.where(value.isfinite(), mixed, value)


@frozen(eq=False)
class State:
    """Where C chains are: all a sampler needs to go on from here.

    Attributes
    ----------
    position
        x, shape (C, dimension).
    log_density, gradient
        log pi(x), shape (C,), and its gradient, shape (C, dimension).
    memory
        What the sampler carries along or has learned, by its own names: tensors of any shape, so that
        a state can be written down and read back.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor
    memory: Mapping[str, Tensor] = field(factory=dict)

    @classmethod
    def at(cls, target: Target, x: Tensor, **memory: Tensor) -> Self:
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
        return cls(x, value, gradient, memory)

    def moved(self, accepted: Tensor, proposal: "State") -> "State":
        """``proposal`` in the chains where ``accepted`` (C,), this state in the others."""
        return State(
            torch.where(accepted[:, None], proposal.position, self.position),
            torch.where(accepted, proposal.log_density, self.log_density),
            torch.where(accepted[:, None], proposal.gradient, self.gradient),
            self.memory,
        )

    def remembering(self, **memory: Tensor) -> "State":
        """The same state with these entries of the memory added or replaced."""
        return evolve(self, memory={**self.memory, **memory})


@frozen(eq=False)
class Info:
    """What happened in one step, one entry a chain.

    Attributes
    ----------
    acceptance
        The probability with which the proposal was accepted; its mean if there were several.
    accepted, diverged
        Whether one was, and whether an energy was not finite or off by more than 1000.
    energy
        The Hamiltonian at the start of the trajectory; -log pi where there is none.
    n_steps
        Gradients evaluated.
    step_size
        That used; NaN where there is none.
    parts
        Of each sampler that a composed one is made of; the fields above are then those of the first
        part that has a step size, divergences and gradients those of all.
    inner
        Of all copies, where a sampler moves K of each chain: (K C,) numbers, copy by copy.
    """

    acceptance: Tensor
    accepted: Tensor
    diverged: Tensor
    energy: Tensor
    n_steps: Tensor
    step_size: Tensor
    parts: tuple["Info", ...] = ()
    inner: "Info | None" = None

    def first(self, n_chains: int) -> "Info":
        """Of the first few chains, without copies."""
        return Info(
            *(getattr(self, name)[:n_chains] for name in _INFO_FIELDS),
            parts=tuple(part.first(n_chains) for part in self.parts),
        )

    @classmethod
    def composed(cls, parts: Sequence["Info"]) -> "Info":
        """Of a step made of one step of each part."""
        diverged = torch.stack([part.diverged for part in parts]).any(0)
        n_steps = torch.stack([part.n_steps for part in parts]).sum(0)
        first = next((part for part in parts if not part.step_size.isnan().all()), parts[0])
        return evolve(first, diverged=diverged, n_steps=n_steps, parts=tuple(parts), inner=None)

    @classmethod
    def repeated(cls, infos: Sequence["Info"]) -> "Info":
        """Of several steps of one sampler: means, whether any was accepted or diverged, all gradients."""
        if len(infos) == 1:
            return infos[0]
        parts = zip(*(info.parts for info in infos), strict=True)
        copies = [info.inner for info in infos if info.inner is not None]
        return cls(
            torch.stack([info.acceptance for info in infos]).mean(0),
            torch.stack([info.accepted for info in infos]).any(0),
            torch.stack([info.diverged for info in infos]).any(0),
            torch.stack([info.energy for info in infos]).mean(0),
            torch.stack([info.n_steps for info in infos]).sum(0),
            infos[-1].step_size,
            tuple(map(Info.repeated, parts)),
            Info.repeated(copies) if copies else None,
        )


_INFO_FIELDS = ("acceptance", "accepted", "diverged", "energy", "n_steps", "step_size")


class Sampler(ABC):
    """A Markov kernel that leaves any ``Target`` invariant.

    A subclass must implement ``init`` and ``step``. It may implement ``uses_blocks``, ``uses_softened``,
    ``reminded``, and ``adapt`` and ``settle``, which are called in warm-up only; the defaults of the last
    three change nothing. Callers also use ``refresh``.
    """

    @abstractmethod
    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        """The state at positions ``x``, shape (C, dimension); ``State.at`` checks both arguments."""

    @property
    def uses_blocks(self) -> bool:
        """Whether it asks the target for ``blocks``, so that it is worth the effort to know some."""
        return False

    @property
    def uses_softened(self) -> bool:
        """Whether it asks the target for ``softened``, so that it cannot run on softer versions."""
        return False

    @abstractmethod
    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        """One Markov step of every chain."""

    def refresh(self, target: Target, state: State) -> State:
        """The same positions, or new ones, seen by another target."""
        value, gradient = target.value_and_gradient(state.position)
        return self.reminded(target, evolve(state, log_density=value, gradient=gradient))

    def reminded(self, target: Target, state: State) -> State:
        """``state`` with what its memory knows of the target and of the position brought up to date."""
        return state

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        """Learn from one step; ``iteration`` counts from 1, where learning starts afresh."""
        return state

    def settle(self, target: Target, state: State) -> State:
        """Fix what was learned, before the first draw."""
        return state


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def metropolis(log_ratio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Acceptance probabilities min(1, exp(log_ratio)), 0 for NaN, and whether accepted, each (C,)."""
    acceptance = log_ratio.nan_to_num(nan=-torch.inf).exp().clamp(max=1.0)
    uniform = torch.rand(
        acceptance.shape, generator=generator, dtype=acceptance.dtype, device=acceptance.device
    )
    return acceptance, uniform < acceptance


def half_square(x: Tensor, factor: float | Tensor) -> Tensor:
    """|x / s|^2 / 2, shape (C,)."""
    return 0.5 * (x / factor).square().sum(1)


def factor_of(target: Target, like: Tensor) -> float | Tensor:
    """The Gaussian factor of a target, in the dtype and on the device of ``like``.

    Raises
    ------
    ValueError
        If it knows none.
    """
    factor = target.gaussian_factor
    if factor is None:
        raise ValueError(f"target: expected one with a gaussian_factor, got {type(target).__name__} without")
    return factor.to(like) if isinstance(factor, Tensor) else factor


def _check_factor(value: object, dimension: int) -> float | Tensor | None:
    """Standard deviations of a Gaussian factor, one or (dimension,); or None."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        return check_real("gaussian_factor", value, minimum=0.0, exclusive=True)
    _check_tensor("gaussian_factor", value, (dimension,))
    if not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError("gaussian_factor: expected finite standard deviations above 0, got others")
    return value


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
