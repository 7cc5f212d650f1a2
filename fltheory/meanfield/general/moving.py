"""Layers by particles that follow the kernel below them: what the readout layer and those under it share."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.layer import LayersAbove
from fltheory.numerics.validation import Array

_TRUSTED_ESS = 0.3  # effective share of the particles on the way
_MOST_STEPS = 200
_LONGER, _SHORTER = 1.5, 0.5  # steps on the way of K


class SampledLayers(LayersAbove):
    """Layers at one kernel as weighted neurons, solved on them."""

    @property
    @abstractmethod
    def evenness(self) -> float:
        """The smallest effective share of the neurons of a layer."""

    @property
    @abstractmethod
    def kernel_below(self) -> Array:
        """<phi phi^T> of the layer below, (P, P)."""


Layers = TypeVar("Layers", bound=SampledLayers)


class ParticlesAbove(ABC, Generic[Layers]):
    """The layers above a kernel <phi phi^T>, by particles."""

    @abstractmethod
    def first(self, kernel: Array, like: LayersAbove | None = None) -> Layers:
        """The solution on a kernel (P, P): from scratch, or straight to where another run has it.

        Raises
        ------
        ConvergenceError
            If the particles do not settle.
        """

    @abstractmethod
    def move(self, near: Layers, n_rounds: int = 1) -> Layers:
        """The solution at the same kernel on particles drawn afresh: of several rounds, together."""

    @abstractmethod
    def together(self, one: Layers, other: Layers) -> Layers:
        """The solution on the neurons of two that are near each other, from the first."""

    def follow(self, near: Layers, kernel: Array) -> Layers:
        """At another kernel, on particles that move there in as many steps as they need."""
        start, part, length = near.kernel_below, 0.0, 1.0
        for _ in range(_MOST_STEPS):
            length = min(length, 1.0 - part)
            there = near.again(start + (part + length) * (kernel - start))
            if there is None or there.evenness < _TRUSTED_ESS:
                length *= _SHORTER
                continue
            part += length
            if part >= 1.0:
                return there
            length *= _LONGER
            near = self.move(there)
        raise ConvergenceError("the particles of the layers above do not follow the kernel", last=None)
