"""The laws of single neurons in a deep network of ReLU and kin on orthogonal inputs."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.meanfield.ensemble import NeuronEnsemble, moments
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.meanfield.rectified.chain import ChainPoint
from fltheory.meanfield.rectified.condensation import ClassRays
from fltheory.meanfield.rectified.drawing import draw_preactivations
from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers

_N_NEURONS = 8192  # of each layer, that answer for new inputs
_ROUNDING = 1e-10  # added to kernels of drawn neurons


@frozen(eq=False)
class RectifiedPosterior(NeuronPosterior):
    """A bulk in every layer, and condensed neurons, in the first or in others.

    Attributes
    ----------
    model
        The network and the task.
    point
        The order parameters over classes.
    seed
        Of the neurons that answer for new inputs.
    """

    model: Model
    point: ChainPoint
    seed: int

    @property
    def _member(self) -> Integers:
        return self.point.problem.groups.member

    @property
    def gains(self) -> tuple[float, ...]:
        """lambda_1 ... lambda_L, (R5) and (R6): a neuron's gain over its cost far out, at most 1."""
        return self.point.gains

    @property
    def field(self) -> Array:
        return self.point.state.field[self._member]

    @property
    def branches(self) -> BranchTable:
        """One: neurons of the readout layer's bulk are spread over one heavy-tailed law."""
        variance, field = self.model.readout_variance, self.field
        activity = self.point.layers[-1].bulk.averages[0][self._member]
        mean = variance * field.T @ activity
        kernel = self._bulk(self.model.n_hidden_layers)
        second = variance * np.eye(len(mean)) + variance**2 * field.T @ kernel @ field
        return BranchTable(np.ones(1), mean[None], (second - np.outer(mean, mean))[None], activity[None])

    @property
    def readout_covariance(self) -> Array:
        readouts = self.outliers.readouts
        return np.asarray(super().readout_covariance + readouts.T @ readouts)

    @cached_property
    def outliers(self) -> CondensedNeurons:
        """Those of the readout layer, with abar = sigma_a^2 t^T phi(zbar), (12)."""
        last, slopes = self.model.n_hidden_layers, self.point.problem.slopes
        activations = self.kernel_parts(last).patterns
        readouts = self.model.readout_variance * activations @ self.field
        return CondensedNeurons(readouts, self._condensed_preactivations(last), slopes)

    def is_discrete(self, layer: int) -> bool:
        """Whether some neurons of a layer have condensed: they stay where they are."""
        return self.point.layers[layer - 1].has_condensed

    def kernel_parts(self, layer: int) -> KernelParts:
        return KernelParts(self._bulk(layer), self._along(layer, self._rays(layer).activations))

    def conjugate_kernel(self, layer: int) -> Array:
        return self.point.conjugates[layer - 1].expand(self._member)

    def _bulk(self, layer: int) -> Array:
        """<phi phi^T> of all but the condensed neurons, (P, P)."""
        return self.point.layers[layer - 1].bulk.kernel.expand(self._member)

    def _rays(self, layer: int) -> ClassRays:
        return self.point.layers[layer - 1].rays

    def _along(self, layer: int, rays: Array) -> Array:
        """What condensed neurons of a layer, strongest first, have of rays over classes (C, C): (k, P)."""
        amplitudes = self.point.state.amplitudes[layer - 1]
        where = [c for c in np.argsort(-amplitudes) if amplitudes[c] > 0]
        return np.asarray(np.sqrt(amplitudes[where])[:, None] * rays[where][:, self._member])

    def _condensed_preactivations(self, layer: int) -> Array:
        """zbar on the training inputs, (k, P)."""
        return self._along(layer, self._rays(layer).preactivations)

    # Neurons -----------------------------------------------------------------------------------------

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """The condensed neurons with z = sqrt(n) zbar among n - k others, in random order."""
        condensed = math.sqrt(n) * self._condensed_preactivations(layer)[:n]
        bulk = self._draw_bulk(n - len(condensed), layer, rng)
        z = np.concatenate([condensed, bulk])[rng.permutation(n)]
        if layer < self.model.n_hidden_layers:
            return z, None
        return z, self._draw_readouts(z, rng)

    def _draw_bulk(self, n: int, layer: int, rng: np.random.Generator) -> Array:
        if n == 0:
            return np.empty((0, len(self._member)))
        return draw_preactivations(self.point.layers[layer - 1].bulk, n, self._member, rng)

    def _draw_readouts(self, z: Array, rng: np.random.Generator) -> Array:
        """a given z, N(sigma_a^2 t^T phi, sigma_a^2)."""
        variance = self.model.readout_variance
        mean = variance * self.model.nonlinearity(z) @ self.field
        return np.asarray(mean + math.sqrt(variance) * rng.standard_normal(mean.shape))

    # New inputs --------------------------------------------------------------------------------------

    @cached_property
    def _neurons(self) -> tuple[Array, ...]:
        """Preactivations of drawn neurons of the bulk of each layer, (n, P) each."""
        seeds = np.random.SeedSequence(self.seed).spawn(self.model.n_hidden_layers)
        pairs = enumerate(map(np.random.default_rng, seeds), start=1)
        return tuple(self._draw_bulk(_N_NEURONS, layer, rng) for layer, rng in pairs)

    @cached_property
    def _ensemble(self) -> NeuronEnsemble:
        """The readout layer's neurons, and what they answer."""
        z, noise = self._neurons[-1], self.model.scaled_temperature
        readouts = self._draw_readouts(z, np.random.default_rng([self.seed, 1]))
        outputs = self.model.task.targets - noise * self.field - self.outliers.outputs
        weights = np.full(len(z), 1.0 / len(z))
        return NeuronEnsemble(np.asarray(self.model.nonlinearity(z)), readouts, weights, outputs, noise)

    def training_variance(self) -> Array:
        return self._ensemble.training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """The variance is that of the readout layer's bulk: what else fluctuates is not known."""
        below = self._up_to(self.model.n_hidden_layers - 1, inputs)
        regression, rest = self._regression(self.model.n_hidden_layers, below)
        spread = np.maximum(np.diagonal(rest), 0.0)
        centres = self._neurons[-1] @ regression.T
        mean, variance = self._ensemble.predict(self.model.nonlinearity, centres, spread)
        far, _ = self._condensed_activity(self.model.n_hidden_layers, regression)
        return mean + far.T @ self.outliers.readouts, variance

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        found = self._up_to(layer, inputs)
        return found.own / self._factor_above(layer)

    def _factor_above(self, layer: int) -> float:
        """sigma_{l+1}^2, 1 above the last layer."""
        variances = (*self.model.weight_variances[1:], 1.0)
        return variances[layer - 1]

    def _up_to(self, layer: int, inputs: NewInputs) -> NewInputs:
        """K_l between new and training inputs and among the new, layer by layer."""
        for number in range(1, layer + 1):
            inputs = self._through(number, inputs)
        return inputs

    def _regression(self, layer: int, below: NewInputs) -> tuple[Array, Array]:
        """C (n', P) and R (n', n') with z_* | z ~ N(C z, R) in a layer."""
        kernel = self.point.layers[layer - 1].bulk.below.expand(self._member)
        weights = linalg.solve(kernel, below.cross.T, assume_a="pos").T
        return weights, below.own - weights @ below.cross.T

    def _through(self, layer: int, below: NewInputs) -> NewInputs:
        """The kernels of a layer from those of the layer below.

        What activations on the training inputs explain is corrected by their known kernel.
        """
        phi, z = self.model.nonlinearity, self._neurons[layer - 1]
        regression, rest = self._regression(layer, below)
        centres, trained = z @ regression.T, np.asarray(phi(z))
        spread = np.maximum(np.diagonal(rest), 0.0)
        pairs = zip(centres.T, spread, strict=True)
        expected = np.stack([moments(phi, centre, float(v))[0] for centre, v in pairs], axis=1)
        own, sampled = self._own(centres, rest, layer), trained.T @ trained / len(z)
        sampled[np.diag_indices_from(sampled)] += _ROUNDING
        explained = linalg.solve(sampled, trained.T @ expected / len(z), assume_a="pos")
        known = self._bulk(layer)
        cross = explained.T @ known
        own = own + explained.T @ (known - sampled) @ explained
        scale = self._factor_above(layer)
        far, there = self._condensed_activity(layer, regression)
        return NewInputs(scale * (cross + far.T @ there), scale * (own + far.T @ far))

    def _own(self, centres: Array, rest: Array, layer: int) -> Array:
        """<phi_* phi_*^T> over the drawn neurons, (n', n')."""
        values, vectors = np.linalg.eigh(0.5 * (rest + rest.T))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        noise = np.random.default_rng([self.seed, 2, layer]).standard_normal(centres.shape)
        activations = np.asarray(self.model.nonlinearity(centres + noise @ root.T))
        return np.asarray(activations.T @ activations / len(activations))

    def _condensed_activity(self, layer: int, regression: Array) -> tuple[Array, Array]:
        """phi(zbar) of condensed neurons on new (k, n') and on training inputs (k, P)."""
        z = self._condensed_preactivations(layer)
        return np.asarray(self.model.nonlinearity(z @ regression.T)), self.kernel_parts(layer).patterns
