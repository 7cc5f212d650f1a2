"""Single neurons under their posterior, docs/theory.md (3) and (4): one interface for all engines."""

from abc import ABC, abstractmethod

import numpy as np
from attrs import frozen

from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.numerics.validation import Array


@frozen(eq=False)
class NewInputs:
    """Input kernels that tie new inputs to the training inputs, docs/theory.md section 7.

    Attributes
    ----------
    cross
        K_0 between n new and the P training inputs, (n, P).
    own
        K_0 among the new inputs, (n, n).
    """

    cross: Array
    own: Array

    def regression(self, kernel_factor: Array) -> tuple[Array, Array]:
        """C (n, q) and R (n, n) with z_* | g ~ N(C g, R) for z = F g on the training inputs."""
        weights = self.cross @ np.linalg.pinv(kernel_factor).T
        return weights, self.own - weights @ weights.T


@frozen(eq=False)
class BranchTable:
    """The branches of the readout layer, most probable first.

    Attributes
    ----------
    probabilities
        P_gamma, (B,).
    readout, readout_covariance
        Mean and covariance of a inside each branch: (B, m), (B, m, m).
    activations
        <phi> inside each branch, (B, P).
    """

    probabilities: Array
    readout: Array
    readout_covariance: Array
    activations: Array

    @property
    def patterns(self) -> Array:
        """sqrt(P_gamma) <phi>_gamma, (B, P): what branches contribute to the kernel."""
        return np.asarray(np.sqrt(self.probabilities)[:, None] * self.activations)

    @property
    def total_readout_covariance(self) -> Array:
        """Covariance of a over all branches, (m, m)."""
        mean = self.probabilities @ self.readout
        second = np.einsum("b,bi,bj->ij", self.probabilities, self.readout, self.readout)
        within = np.tensordot(self.probabilities, self.readout_covariance, 1)
        return np.asarray(second + within - np.outer(mean, mean))


@frozen(eq=False)
class KernelParts:
    """A kernel as a bulk and a few patterns: K = bulk + patterns^T patterns; (P, P) and (k, P)."""

    bulk: Array
    patterns: Array

    @property
    def total(self) -> Array:
        """K, (P, P)."""
        return np.asarray(self.bulk + self.patterns.T @ self.patterns)


class NeuronPosterior(ABC):
    """The laws of single neurons at the solution of the mean-field equations.

    A subclass must implement what is abstract; ``MeanFieldSolution`` asks nothing else. ``layer``
    counts from 1 to L.
    """

    @property
    @abstractmethod
    def field(self) -> Array:
        """t, (P, m)."""

    @property
    @abstractmethod
    def branches(self) -> BranchTable:
        """The branches of the readout layer."""

    @property
    def readout_covariance(self) -> Array:
        """Covariance of a, (m, m)."""
        return self.branches.total_readout_covariance

    @property
    def outliers(self) -> CondensedNeurons | None:
        """The condensed neurons, if phi can have any."""
        return None

    def is_discrete(self, layer: int) -> bool:
        """Whether neurons of a layer below the last sit on codes that they do not leave."""
        return False

    @abstractmethod
    def kernel_parts(self, layer: int) -> KernelParts:
        """<phi phi^T> on the training inputs."""

    @abstractmethod
    def conjugate_kernel(self, layer: int) -> Array:
        """Kt_l, (P, P)."""

    @abstractmethod
    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """n independent neurons: preactivations (n, P) and, in the last layer, readouts (n, m)."""

    @abstractmethod
    def training_variance(self) -> Array:
        """N times the variance of the outputs on the training inputs, (P, m): (16)."""

    @abstractmethod
    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """Mean output (15) and N times its variance (16) on new inputs, (n, m) each."""

    @abstractmethod
    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        """<phi_* phi_*^T> among new inputs, (n, n)."""
