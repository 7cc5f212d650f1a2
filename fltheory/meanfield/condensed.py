"""The posterior of a neuron where some have condensed: a bulk, and single neurons beside it."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.ensemble import NeuronEnsemble, moments
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.model import Model
from fltheory.numerics.validation import Array

_N_NEURONS = 8192  # of the bulk, that answer for new inputs
_SOFTEST = 1e-9  # relative stiffness of a condensed neuron; along its ray it has none
_CUT = 1e-10  # relative singular value that counts as zero


@frozen(eq=False)
class CondensedPosterior(NeuronPosterior):
    """Bulk and outliers, docs/theory.md (11).

    Attributes
    ----------
    model
        The network and the task.
    bulk
        The law of all neurons but the condensed ones, at the same t.
    condensed
        The outliers.
    factor
        F (P, q) with K_{L-1} = F F^T.
    seed
        Of the neurons that answer for new inputs.
    """

    model: Model
    bulk: NeuronPosterior
    condensed: CondensedNeurons
    factor: Array
    seed: int

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
        z, a = math.sqrt(n) * self.condensed.preactivations[:k], math.sqrt(n) * self.condensed.readouts[:k]
        if n > k:
            bulk_z, bulk_a = self.bulk.draw(n - k, layer, rng)
            assert bulk_a is not None
            z, a = np.concatenate([z, bulk_z]), np.concatenate([a, bulk_a])
        order = rng.permutation(n)
        return z[order], a[order]

    @cached_property
    def _ensemble(self) -> tuple[Array, NeuronEnsemble]:
        """Preactivations of drawn neurons of the bulk, and what they answer."""
        z, readouts = self.bulk.draw(_N_NEURONS, 1, np.random.default_rng(self.seed))
        assert readouts is not None
        noise = self.model.scaled_temperature
        outputs = self.model.task.targets - noise * self.field - self.condensed.outputs
        weights = np.full(len(z), 1.0 / len(z))
        return z, NeuronEnsemble(self.model.nonlinearity(z), readouts, weights, outputs, noise)

    def training_variance(self) -> Array:
        if not len(self.condensed):
            return self.bulk.training_variance()
        _, ensemble = self._ensemble
        missed = self.model.scaled_temperature * ensemble.respond(self._fluctuations)
        return ensemble.training_variance() + self._seen_through(missed)

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """Mean (15), and the variance (16) with what condensed neurons fluctuate, (16b)."""
        if not len(self.condensed):
            return self.bulk.predict(inputs)
        z, ensemble = self._ensemble
        regression, rest = inputs.regression(self.factor)
        inverse = np.linalg.pinv(self.factor)
        spread = np.maximum(np.diagonal(rest), 0.0)
        centres = z @ inverse.T @ regression.T
        mean, variance = ensemble.predict(self.model.nonlinearity, centres, spread)
        at = self.condensed.preactivations @ inverse.T @ regression.T  # z_* of the outliers, (k, n)
        mean = mean + self.condensed.activate(at).T @ self.condensed.readouts
        pairs = zip(centres.T, spread, strict=True)
        first = np.stack([moments(self.model.nonlinearity, c, float(v))[0] for c, v in pairs], axis=1)
        missed = self._moves(at, regression) - ensemble.cross(first, ensemble.respond(self._fluctuations))
        free = (self.condensed.slope(at) ** 2 * spread).T @ self.condensed.readouts**2
        return mean, variance + self._seen_through(missed) + free

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        regression, _ = inputs.regression(self.factor)
        latent = self.condensed.preactivations @ np.linalg.pinv(self.factor).T
        activations = self.condensed.activate(latent @ regression.T)
        return np.asarray(self.bulk.kernel(layer, inputs) + activations.T @ activations)

    # What condensed neurons fluctuate ------------------------------------------------------------

    @cached_property
    def _soft_directions(self) -> list[tuple[Array, Array]]:
        """M^(-1/2) of each outlier, its rows those of a (m, m + q) and of w (q, m + q): (16b)."""
        m, q = self.field.shape[1], self.factor.shape[1]
        found = []
        for z in self.condensed.preactivations:
            allowed = np.eye(q)
            held = self.factor[z == 0]
            if len(held):
                allowed -= np.linalg.pinv(held, rcond=_CUT) @ held
            drive = self.field.T @ (self.condensed.slope(z)[:, None] * self.factor) @ allowed
            stiffness = np.eye(m + q)
            stiffness[:m, :m] /= self.model.readout_variance
            stiffness[:m, m:], stiffness[m:, :m] = -drive, -drive.T
            values, vectors = np.linalg.eigh(stiffness)
            root = vectors / np.sqrt(np.maximum(values, _SOFTEST * values[-1]))
            found.append((root[:m], allowed @ root[m:]))
        return found

    def _moves(self, z: Array, loadings: Array) -> Array:
        """Outputs moved by the soft directions, (n, m, k (m + q)), of inputs with z = ``loadings`` w."""
        neurons = zip(self._soft_directions, z, self.condensed.readouts, strict=True)
        parts = [np.empty((len(loadings), self.field.shape[1], 0))]
        for (readout_moves, latent_moves), at, readout in neurons:
            through_z = (self.condensed.slope(at)[:, None] * loadings) @ latent_moves
            through_a = self.condensed.activate(at)[:, None, None] * readout_moves
            parts.append(through_a + through_z[:, None, :] * readout[:, None])
        return np.concatenate(parts, axis=-1)

    @cached_property
    def _fluctuations(self) -> Array:
        """The moves of the training outputs, (P, m, k (m + q))."""
        return self._moves(self.condensed.preactivations, self.factor)

    @cached_property
    def _resistance(self) -> Array:
        """1 + A (N T + Cov(phi a^T))^{-1} A^T, A the fluctuations."""
        moves = self._fluctuations.reshape(self.field.size, -1)
        response = self._ensemble[1].respond(self._fluctuations).reshape(self.field.size, -1)
        return np.asarray(np.eye(moves.shape[1]) + moves.T @ response)

    def _seen_through(self, missed: Array) -> Array:
        """The variance of moves (n, m, r) that the training outputs leave undetermined, (n, m)."""
        flat = missed.reshape(-1, missed.shape[-1])
        return np.asarray(
            (flat * np.linalg.solve(self._resistance, flat.T).T).sum(1).reshape(missed.shape[:2])
        )
