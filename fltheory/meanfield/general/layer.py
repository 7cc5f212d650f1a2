"""What the search for K_1 asks of the two layers, however they are integrated over."""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from attrs import frozen

from fltheory.meanfield.general.conjugate import ConjugateKernel
from fltheory.meanfield.neuron import NeuronPosterior
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array


class HiddenState(ABC):
    """The first layer under one Kt.

    Attributes
    ----------
    factor
        F (P, q) with K_0 = F F^T.
    conjugate
        Kt in its parts.
    log_partition
        log Z_1.
    """

    factor: Array
    nonlinearity: Nonlinearity
    conjugate: ConjugateKernel
    log_partition: float

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
    """The first layer under any Kt."""

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


class ReadoutState(ABC):
    """The readout layer at one kernel."""

    @property
    @abstractmethod
    def weight_variance(self) -> float:
        """sigma_2^2."""

    @property
    @abstractmethod
    def field(self) -> Array:
        """t, (P, m)."""

    @property
    @abstractmethod
    def action(self) -> float:
        """S."""

    @property
    @abstractmethod
    def residual(self) -> float:
        """Largest absolute entry of the gap of (5)."""

    @property
    @abstractmethod
    def message(self) -> Array:
        """Kt_1 = 2 dS / dK for K = <phi phi^T>_1, (P, P)."""

    @property
    @abstractmethod
    def posterior(self) -> NeuronPosterior:
        """Its neurons: those of a single hidden layer on the kernel sigma_2^2 K."""

    @abstractmethod
    def again(self, kernel: Array) -> "ReadoutState | None":
        """At a kernel close by; None where that fails."""
