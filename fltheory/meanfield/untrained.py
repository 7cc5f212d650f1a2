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
    """Any depth at t = 0: z^l ~ N(0, K_{l-1}) and a ~ N(0, sigma_a^2), independent."""

    model: Model

    def _above(self, covariance: Array, layer: int) -> Array:
        """K_{layer-1} of some inputs, given their K_0, (n, n)."""
        for variance in self.model.weight_variances[1:layer]:
            covariance = variance * self.model.nonlinearity.gaussian_kernel(covariance)
        return covariance

    def _patterns(self, layer: int) -> Array:
        """<phi> of a layer, (1, P)."""
        phi, n = self.model.nonlinearity, len(self.model.input_kernel)
        variances = np.diagonal(self._above(self.model.input_kernel, layer))
        return np.asarray(gaussian_mean(phi, np.zeros(n), variances, phi.gaussian_rule)[None])

    @property
    def field(self) -> Array:
        return np.zeros_like(self.model.task.targets)

    @property
    def branches(self) -> BranchTable:
        m = self.model.task.n_outputs
        covariance = self.model.readout_variance * np.eye(m)
        activations = self._patterns(self.model.n_hidden_layers)
        return BranchTable(np.ones(1), np.zeros((1, m)), covariance[None], activations)

    def kernel_parts(self, layer: int) -> KernelParts:
        patterns = self._patterns(layer)
        total = self.model.nonlinearity.gaussian_kernel(self._above(self.model.input_kernel, layer))
        return KernelParts(total - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.zeros_like(self.model.input_kernel)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        values, vectors = np.linalg.eigh(self._above(self.model.input_kernel, layer))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        z = rng.standard_normal((n, len(root))) @ root.T
        if layer < self.model.n_hidden_layers:
            return z, None
        scale = math.sqrt(self.model.readout_variance)
        return z, scale * rng.standard_normal((n, self.model.task.n_outputs))

    def training_variance(self) -> Array:
        return self._variance(np.diagonal(self.kernel_parts(self.model.n_hidden_layers).total))

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        variance = self._variance(np.diagonal(self.kernel(self.model.n_hidden_layers, inputs)))
        return np.zeros_like(variance), variance

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        return self.model.nonlinearity.gaussian_kernel(self._above(inputs.own, layer))

    def _variance(self, second_moment: Array) -> Array:
        return np.outer(self.model.readout_variance * second_moment, np.ones(self.model.task.n_outputs))
