"""The posterior of a readout neuron as weighted particles: any kernel, any bounded phi."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.branches import activity_codes, input_groups, neuron_states, occupied_codes
from fltheory.meanfield.ensemble import NeuronEnsemble
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Integers

_MOST_ENTRIES = 2**25  # of phi a^T of the neurons that answer for new inputs


@frozen(eq=False)
class SampledPosterior(NeuronPosterior):
    """One hidden layer, by particles g with z = F g; their readouts are Gaussian given z.

    Attributes
    ----------
    latent, weights
        Particles (M, q) and their weights (M,), summing to 1.
    field
        t, (P, m), which solves (5) on these particles.
    """

    latent: Array
    weights: Array
    field: Array
    factor: Array
    targets: Array
    noise: float
    readout_variance: float
    nonlinearity: Nonlinearity
    seed: int

    @cached_property
    def _activations(self) -> Array:
        return np.asarray(self.nonlinearity(self.latent @ self.factor.T))

    @cached_property
    def _readout_means(self) -> Array:
        """<a> given z, sigma_a^2 t^T phi, (M, m)."""
        return np.asarray(self.readout_variance * self._activations @ self.field)

    @cached_property
    def _member(self) -> Integers:
        """The branch of each particle: its 0/1 code over groups of inputs, (M,).

        Where phi has a slope at infinity the bulk is one branch, and has no codes.
        """
        if not self.nonlinearity.is_bounded:
            return np.zeros(len(self.weights), dtype=np.int64)
        scale = math.sqrt(float((self.factor**2).sum(1).max()))
        middle = float(np.mean(self.nonlinearity(neuron_states(self.nonlinearity, scale))))
        codes = activity_codes(self._activations, input_groups(self.targets), middle)
        return occupied_codes(codes, self.weights)

    @cached_property
    def branches(self) -> BranchTable:
        inside = self.weights[:, None] * np.eye(self._member.max() + 1)[self._member]  # (M, B)
        probabilities = inside.sum(0)
        order = np.argsort(-probabilities)
        inside, probabilities = inside[:, order] / probabilities[order], probabilities[order]
        readout = inside.T @ self._readout_means
        second = np.einsum("sb,si,sj->bij", inside, self._readout_means, self._readout_means, optimize=True)
        covariance = second - readout[:, :, None] * readout[:, None, :]
        covariance = covariance + self.readout_variance * np.eye(readout.shape[1])
        return BranchTable(probabilities, readout, covariance, inside.T @ self._activations)

    def kernel_parts(self, layer: int) -> KernelParts:
        kernel = self._activations.T @ (self.weights[:, None] * self._activations)
        patterns = self.branches.patterns
        return KernelParts(kernel - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.asarray(self.readout_variance * self.field @ self.field.T)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        chosen = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = math.sqrt(self.readout_variance) * rng.standard_normal((n, self.field.shape[1]))
        return self.latent[chosen] @ self.factor.T, self._readout_means[chosen] + noise

    @cached_property
    def _answering(self) -> tuple[Integers, Array]:
        """Which particles answer for new inputs, and their weights: as many as memory allows, (n,) each."""
        size, most = len(self.weights), _MOST_ENTRIES // self.targets.size
        if size <= most:
            return np.arange(size), self.weights
        positions = (np.random.default_rng(self.seed).random() + np.arange(most)) / most
        chosen = np.searchsorted(np.cumsum(self.weights), positions)
        return np.minimum(chosen, size - 1), np.full(most, 1.0 / most)

    @cached_property
    def _ensemble(self) -> NeuronEnsemble:
        chosen, weights = self._answering
        means = self._readout_means[chosen]
        noise = np.random.default_rng(self.seed + 2).standard_normal(means.shape)
        readouts = means + math.sqrt(self.readout_variance) * noise
        outputs = self.targets - self.noise * self.field
        return NeuronEnsemble(self._activations[chosen], readouts, weights, outputs, self.noise)

    def _centres(self, weights: Array) -> Array:
        """<z_*> of new inputs given each particle that answers, (n, n')."""
        return np.asarray(self.latent[self._answering[0]] @ weights.T)

    def training_variance(self) -> Array:
        return self._ensemble.training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        weights, rest = inputs.regression(self.factor)
        spread = np.maximum(np.diagonal(rest), 0.0)
        return self._ensemble.predict(self.nonlinearity, self._centres(weights), spread)

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        weights, rest = inputs.regression(self.factor)
        known = self.kernel_parts(1).total
        return self._ensemble.kernel(self.nonlinearity, self._centres(weights), rest, self.seed + 1, known)
