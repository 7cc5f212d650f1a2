"""What the search for a kernel asks of a layer and of those above, however they are integrated over."""

from abc import ABC, abstractmethod
from typing import Protocol, Self

import numpy as np
from attrs import frozen

from fltheory.meanfield.general.conjugate import ConjugateKernel
from fltheory.meanfield.neuron import NeuronPosterior
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array


class HiddenState(ABC):
    """A hidden layer under one Kt.

    Attributes
    ----------
    conjugate
        Kt in its parts.
    log_partition
        log Z.
    """

    conjugate: ConjugateKernel
    log_partition: float

    @property
    @abstractmethod
    def factor(self) -> Array:
        """F (P, q) with K = F F^T of the layer below."""

    @property
    @abstractmethod
    def nonlinearity(self) -> Nonlinearity:
        """phi."""

    @property
    @abstractmethod
    def kernel(self) -> Array:
        """<phi phi^T>, (P, P)."""

    @property
    def overlap(self) -> Array:
        """M = V^T K V, (r, r)."""
        v = self.conjugate.directions
        return np.asarray(v.T @ self.kernel @ v)

    @property
    @abstractmethod
    def mean_activations(self) -> Array:
        """<phi>, (P,)."""

    @abstractmethod
    def response(self) -> Array:
        """dM / dc in coordinates, (k, k)."""

    @abstractmethod
    def kernel_directions(self) -> Array:
        """dK / dc for each coordinate of c, (k, P, P)."""

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """n latents g of the exact law, (n, q)."""


@frozen(eq=False)
class CoreSolution:
    """The layer at a given overlap, and how far it is from it, relative."""

    state: HiddenState
    error: float


class HiddenLayer(Protocol):
    """A hidden layer under any Kt."""

    def expect(self, residual: float) -> None:
        """Be as accurate from now on as a solution of this residual deserves."""

    def at_overlap(
        self, conjugate: ConjugateKernel, overlap: Array, *, tolerance: float, max_iterations: int
    ) -> CoreSolution:
        """The layer under the Kt of these directions, d and E whose overlap M is the given one, (r, r).

        Raises
        ------
        ConvergenceError
            If it cannot be told.
        """


class LayersAbove(ABC):
    """The readout layer, or all layers from one on, at one kernel of the layer below."""

    @property
    @abstractmethod
    def weight_variance(self) -> float:
        """sigma^2 of the weights between the layer below and these."""

    @property
    @abstractmethod
    def field(self) -> Array:
        """t, (P, m)."""

    @property
    @abstractmethod
    def action(self) -> float:
        """S, or J of these layers."""

    @property
    @abstractmethod
    def residual(self) -> float:
        """Largest absolute entry of the gap of (5)."""

    @property
    @abstractmethod
    def message(self) -> Array:
        """Kt = 2 dS / dK for K = <phi phi^T> of the layer below, (P, P)."""

    @property
    @abstractmethod
    def posterior(self) -> NeuronPosterior:
        """Neurons: those of a network with these layers alone on the kernel sigma^2 K."""

    @abstractmethod
    def again(self, kernel: Array) -> Self | None:
        """At a kernel close by; None where that fails."""
