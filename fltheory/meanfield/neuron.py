"""One neuron of the readout layer under its posterior, docs/theory.md (3): the common interface."""

from abc import ABC, abstractmethod

import numpy as np
from attrs import frozen

from fltheory.numerics.validation import Array


@frozen(eq=False)
class NewInputs:
    """Prior kernels that tie new inputs to the training inputs, docs/theory.md section 7.

    Attributes
    ----------
    cross
        K_{L-1} between n new and the P training inputs, (n, P).
    own
        K_{L-1} among the new inputs, (n, n).
    """

    cross: Array
    own: Array

    def regression(self, kernel_factor: Array) -> tuple[Array, Array]:
        """C and R with z_* = C g + N(0, R) for z = F g on the training inputs, (n, q) and (n, n)."""
        weights = self.cross @ np.linalg.pinv(kernel_factor).T
        return weights, self.own - weights @ weights.T


@frozen(eq=False)
class ReadoutMoments:
    """Averages over the single-neuron posterior that the solution reports.

    Attributes
    ----------
    log_partition
        log Z(t).
    probabilities
        P_gamma of B branches, (B,), falling.
    readout, readout_covariance
        Mean and covariance of a inside each branch: (B, m), (B, m, m).
    activations
        <phi> inside each branch, (B, P).
    bulk
        Covariance of phi inside branches, averaged over them, (P, P).
    outputs
        <phi a^T>, (P, m).
    """

    log_partition: float
    probabilities: Array
    readout: Array
    readout_covariance: Array
    activations: Array
    bulk: Array
    outputs: Array

    @property
    def patterns(self) -> Array:
        """sqrt(P_gamma) <phi>_gamma, (B, P): the kernel is ``bulk`` plus their outer products."""
        return np.asarray(np.sqrt(self.probabilities)[:, None] * self.activations)

    @property
    def kernel(self) -> Array:
        """<phi phi^T>, (P, P)."""
        return np.asarray(self.bulk + self.patterns.T @ self.patterns)

    @property
    def total_readout_covariance(self) -> Array:
        """Covariance of a over all branches, (m, m)."""
        mean = self.probabilities @ self.readout
        second = np.einsum("b,bi,bj->ij", self.probabilities, self.readout, self.readout)
        within = np.tensordot(self.probabilities, self.readout_covariance, 1)
        return np.asarray(second + within - np.outer(mean, mean))


class NeuronPosterior(ABC):
    """The law of (z, a) of one neuron of the readout layer, at the solution's dual field.

    A subclass must implement all of it; ``MeanFieldSolution`` asks nothing else.
    """

    @abstractmethod
    def moments(self) -> ReadoutMoments:
        """Averages over training inputs."""

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """n independent neurons: preactivations (n, P) and readouts (n, m)."""

    @abstractmethod
    def output_variance(self) -> Array:
        """N times the variance of the output on the training inputs, (P, m): (16)."""

    @abstractmethod
    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """Mean output (n, m) and N times its variance (n, m) on new inputs: (15), (16)."""

    @abstractmethod
    def kernel(self, inputs: NewInputs) -> Array:
        """<phi_* phi_*^T> among new inputs, (n, n)."""
