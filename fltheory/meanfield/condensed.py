"""The posterior of a neuron where some have condensed: a bulk, and single neurons beside it."""

import numpy as np
from attrs import frozen

from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.numerics.validation import Array


@frozen(eq=False)
class CondensedPosterior(NeuronPosterior):
    """Bulk and outliers, docs/theory.md (11).

    Attributes
    ----------
    bulk
        The law of all neurons but the condensed ones, at the same t.
    condensed
        The outliers.
    factor
        F (P, q) with K_{L-1} = F F^T.
    """

    bulk: NeuronPosterior
    condensed: CondensedNeurons
    factor: Array

    @property
    def field(self) -> Array:
        return self.bulk.field

    @property
    def branches(self) -> BranchTable:
        return self.bulk.branches

    @property
    def readout_covariance(self) -> Array:
        readouts = self.condensed.readouts
        return np.asarray(self.bulk.readout_covariance + readouts.T @ readouts)

    @property
    def outliers(self) -> CondensedNeurons:
        return self.condensed

    def kernel_parts(self, layer: int) -> KernelParts:
        return KernelParts(self.bulk.kernel_parts(layer).total, self.condensed.activations)

    def conjugate_kernel(self, layer: int) -> Array:
        return self.bulk.conjugate_kernel(layer)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """The condensed neurons with a = sqrt(n) readout among n - k of the bulk, in random order."""
        k = min(n, len(self.condensed))
        z, a = np.sqrt(n) * self.condensed.preactivations[:k], np.sqrt(n) * self.condensed.readouts[:k]
        if n > k:
            bulk_z, bulk_a = self.bulk.draw(n - k, layer, rng)
            assert bulk_a is not None
            z, a = np.concatenate([z, bulk_z]), np.concatenate([a, bulk_a])
        order = rng.permutation(n)
        return z[order], a[order]

    def training_variance(self) -> Array:
        return self.bulk.training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        mean, variance = self.bulk.predict(inputs)
        return mean + self._activations_at(inputs).T @ self.condensed.readouts, variance

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        activations = self._activations_at(inputs)
        return np.asarray(self.bulk.kernel(layer, inputs) + activations.T @ activations)

    def _activations_at(self, inputs: NewInputs) -> Array:
        """phi_inf of the condensed neurons on new inputs, (k, n): (15)."""
        weights, _ = inputs.regression(self.factor)
        latent = self.condensed.preactivations @ np.linalg.pinv(self.factor).T
        return self.condensed.activate(latent @ weights.T)
