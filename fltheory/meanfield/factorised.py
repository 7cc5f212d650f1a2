"""The posterior of a readout neuron for a diagonal input kernel: exact, by weighted points in a."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp

from fltheory.meanfield.ensemble import NeuronEnsemble
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.quadrature.dual import GroupedEvaluation
from fltheory.meanfield.quadrature.proposal import log_mixture
from fltheory.numerics.grids import draw_on_grid
from fltheory.numerics.positive import LowRankPlusBlocks
from fltheory.numerics.validation import Array

_CANDIDATES = 8  # drawn from the mixture in a for each neuron that is kept
_NEGLIGIBLE = 1e-8  # probability of a branch that is not reported
_ROUNDING = 1e-10  # added to covariances that may be singular
_CELLS = 800  # of the inverse distribution function of z, over +-9 standard deviations


@frozen(eq=False)
class FactorisedPosterior(NeuronPosterior):
    """One hidden layer, diagonal K_0.

    Attributes
    ----------
    solution
        S at the solution, with its weighted points; one row a group of inputs.
    grouped_field
        t, (G, m).
    seed
        Of the neurons that answer for new inputs.
    """

    solution: GroupedEvaluation
    grouped_field: Array
    seed: int

    @property
    def _member(self) -> np.ndarray:
        return self.solution.dual.groups.member

    @property
    def field(self) -> Array:
        return np.asarray(self.grouped_field[self._member])

    @cached_property
    def branches(self) -> BranchTable:
        shares, points = self.solution.branch_weights, self.solution.dual.proposal.points
        probabilities = shares.sum(0)
        order = np.argsort(-probabilities)
        order = order[probabilities[order] > _NEGLIGIBLE]
        probabilities, shares = probabilities[order], shares[:, order]
        inside = shares / probabilities
        readout = inside.T @ points
        second = np.einsum("sb,si,sj->bij", inside, points, points)
        covariance = second - readout[:, :, None] * readout[:, None, :]
        activations = (inside.T @ self.solution.mean)[:, self._member]
        return BranchTable(probabilities / probabilities.sum(), readout, covariance, activations)

    def kernel_parts(self, layer: int) -> KernelParts:
        weights, mean = self.solution.weights, self.solution.mean
        second = mean.T @ (weights[:, None] * mean)
        kernel = second[np.ix_(self._member, self._member)]
        kernel[np.diag_indices_from(kernel)] += (weights @ self.solution.variance)[self._member]
        patterns = self.branches.patterns
        return KernelParts(kernel - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.asarray(self.solution.dual.readout_variance * self.field @ self.field.T)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        readouts = self._draw_readouts(n, rng)
        return self._draw_preactivations(readouts, rng), readouts

    def _draw_readouts(self, n: int, rng: np.random.Generator) -> Array:
        """a, from the Laplace mixture resampled by its importance weights."""
        dual, proposal = self.solution.dual, self.solution.dual.proposal
        chosen = rng.choice(len(proposal.weights), size=n * _CANDIDATES, p=proposal.weights)
        noise = rng.standard_normal((len(chosen), proposal.means.shape[1]))
        points = proposal.means[chosen] + np.einsum("sij,sj->si", proposal.roots[chosen], noise)
        log_z, activations, _ = dual.sites.cumulants(points @ self.grouped_field.T)
        log_weights = log_z @ dual.groups.counts - 0.5 * (points**2).sum(1) / dual.readout_variance
        log_mixed = log_mixture(points, proposal.means, proposal.roots, proposal.weights)
        log_weights -= logsumexp(log_mixed, axis=1)
        weights = np.exp(log_weights - logsumexp(log_weights))
        weights = proposal.imposed(points, weights, activations, self.solution.branch_weights.sum(0))
        kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
        return np.asarray(points[rng.permutation(np.minimum(kept, len(points) - 1))])

    def _draw_preactivations(self, readouts: Array, rng: np.random.Generator) -> Array:
        """z given a, input by input, by the inverse of its distribution function on a fine grid."""
        n, sites = len(readouts), self.solution.dual.sites
        steepest = max(map(abs, sites.nonlinearity.asymptotic_slopes))
        pull = np.abs(readouts @ self.grouped_field.T) * np.sqrt(sites.variances)
        half_width = 9.0 + steepest * float(pull.max())
        n_cells = math.ceil(_CELLS * half_width / 9.0)
        x = np.linspace(-half_width, half_width, n_cells + 1)
        z = np.empty((n, len(self._member)))
        for group, variance in enumerate(sites.variances):
            nodes = np.sqrt(variance) * x
            fields = readouts @ self.grouped_field[group]
            exponent = np.multiply.outer(fields, sites.nonlinearity(nodes)) - 0.5 * x**2
            members = np.flatnonzero(self._member == group)
            z[:, members] = np.sqrt(variance) * draw_on_grid(exponent, x, len(members), rng)
        return z

    @cached_property
    def _output_covariance(self) -> LowRankPlusBlocks:
        """N T + Cov(phi a^T), (16)."""
        n_groups, m = self.grouped_field.shape
        values, vectors = np.linalg.eigh(self.solution.output_covariance())
        root = (vectors * np.sqrt(np.maximum(values, 0.0))).reshape(n_groups, m, -1)
        blocks = self.solution.output_spread() + (self.solution.dual.noise + _ROUNDING) * np.eye(m)
        return LowRankPlusBlocks(root[self._member].reshape(len(self._member) * m, -1), blocks[self._member])

    def training_variance(self) -> Array:
        noise = self.solution.dual.noise  # C - C (C + N T)^{-1} C
        return noise - noise**2 * self._output_covariance.inverse_diagonal()

    @cached_property
    def _ensemble(self) -> tuple[Array, NeuronEnsemble]:
        """Preactivations drawn for the weighted points, and what they answer."""
        dual, readouts = self.solution.dual, self.solution.dual.proposal.points
        z = self._draw_preactivations(readouts, np.random.default_rng(self.seed))
        outputs, weights = self.solution.outputs[self._member], self.solution.weights
        return z, NeuronEnsemble(dual.sites.nonlinearity(z), readouts, weights, outputs, dual.noise)

    def _given_neurons(self, inputs: NewInputs, z: Array) -> tuple[Array, Array]:
        """Mean of z_* given the neurons, (n, n'), and its covariance, (n', n')."""
        weights = inputs.cross / self.solution.dual.groups.variances[self._member]
        return z @ weights.T, inputs.own - weights @ inputs.cross.T

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        z, ensemble = self._ensemble
        centres, rest = self._given_neurons(inputs, z)
        spread = np.maximum(np.diagonal(rest), 0.0)
        return ensemble.predict(self.solution.dual.sites.nonlinearity, centres, spread)

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        z, ensemble = self._ensemble
        centres, rest = self._given_neurons(inputs, z)
        phi, known = self.solution.dual.sites.nonlinearity, self.kernel_parts(1).total
        return ensemble.kernel(phi, centres, rest, self.seed + 1, known)
