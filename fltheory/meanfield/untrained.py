"""Infinite temperature: the prior, for any nonlinearity."""

import math

import numpy as np
from attrs import frozen

from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.model import Model
from fltheory.numerics.gaussian import gaussian_mean
from fltheory.numerics.validation import Array


@frozen(eq=False)
class UntrainedPosterior(NeuronPosterior):
    """One hidden layer at t = 0: z ~ N(0, K_0) and a ~ N(0, sigma_a^2), independent."""

    model: Model

    @property
    def field(self) -> Array:
        return np.zeros_like(self.model.task.targets)

    @property
    def branches(self) -> BranchTable:
        n, m = self.field.shape
        phi, variances = self.model.nonlinearity, np.diagonal(self.model.input_kernel)
        activations = gaussian_mean(phi, np.zeros(n), variances, phi.gaussian_rule)
        covariance = self.model.readout_variance * np.eye(m)
        return BranchTable(np.ones(1), np.zeros((1, m)), covariance[None], activations[None])

    def kernel_parts(self, layer: int) -> KernelParts:
        patterns = self.branches.patterns
        total = self.model.nonlinearity.gaussian_kernel(self.model.input_kernel)
        return KernelParts(total - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.zeros_like(self.model.input_kernel)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        values, vectors = np.linalg.eigh(self.model.input_kernel)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        z = rng.standard_normal((n, len(root))) @ root.T
        scale = math.sqrt(self.model.readout_variance)
        return z, scale * rng.standard_normal((n, self.model.task.n_outputs))

    def training_variance(self) -> Array:
        return self._variance(np.diagonal(self.kernel_parts(1).total))

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        variance = self._variance(np.diagonal(self.kernel(1, inputs)))
        return np.zeros_like(variance), variance

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        return self.model.nonlinearity.gaussian_kernel(inputs.own)

    def _variance(self, second_moment: Array) -> Array:
        return np.outer(self.model.readout_variance * second_moment, np.ones(self.model.task.n_outputs))
