"""The posterior of a readout neuron as EP describes it: one Gaussian in (g, a) a branch."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.confirm import Confirmation, confirm
from fltheory.meanfield.dual import DualPoint
from fltheory.meanfield.ensemble import NeuronEnsemble
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.numerics.gaussian import gaussian_covariance, gaussian_mean, gaussian_slope
from fltheory.numerics.validation import Array, Integers

_CANDIDATES = 10  # drawn from EP's mixture for each neuron that is kept
_N_NEURONS = 8192  # that answer for new inputs
_NEGLIGIBLE = 1e-8  # probability of a branch that is not reported


@frozen(eq=False)
class MixturePosterior(NeuronPosterior):
    """One hidden layer, any kernel: EP's branches at the solution.

    Attributes
    ----------
    point
        The solution of the dual problem.
    """

    point: DualPoint

    @property
    def field(self) -> Array:
        return self.point.field

    @cached_property
    def _order(self) -> Integers:
        order: Integers = np.argsort(-self.point.probabilities)
        return order[self.point.probabilities[order] > _NEGLIGIBLE]

    @cached_property
    def branches(self) -> BranchTable:
        order, found = self._order, self.point.branches
        probabilities = self.point.probabilities[order]
        return BranchTable(
            probabilities / probabilities.sum(),
            found.readout[order],
            found.readout_covariance[order],
            found.activations[order],
        )

    def kernel_parts(self, layer: int) -> KernelParts:
        bulk = np.zeros((len(self.field), len(self.field)))
        for weight, b in zip(self.branches.probabilities, self._order, strict=True):
            bulk += weight * self._activation_covariance(b)
        return KernelParts(bulk, self.branches.patterns)

    def _activation_covariance(self, b: int) -> Array:
        """Cov(phi, phi^T) inside a branch, (P, P): tilted, but for what is beyond linear response.

        Linear response of phi to the latent is EP's own; higher orders in the correlations are
        those of EP's Gaussian, which is exact at the prior.
        """
        found, factor = self.point.branches, self.point.problem.kernel_factor
        phi, rank = self.point.problem.nonlinearity, factor.shape[1]
        response = found.loadings[b] @ found.latent_root[b]
        spread = factor @ found.latent_root[b][:rank]
        mean, covariance = factor @ found.latent_mean[b, :rank], spread @ spread.T
        slope = gaussian_slope(phi, mean, np.diagonal(covariance), phi.gaussian_rule)
        beyond = gaussian_covariance(phi, mean, covariance, phi.gaussian_rule)
        beyond -= np.outer(slope, slope) * covariance
        total = response @ response.T + beyond
        np.fill_diagonal(total, found.activation_variance[b])
        return np.asarray(total)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.asarray(self.point.problem.readout_variance * self.field @ self.field.T)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """EP's mixture, resampled by its importance weights, then a exactly given z."""
        problem = self.point.problem
        latent, weights = self._weighted(n * _CANDIDATES, rng)
        kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
        kept = rng.permutation(np.minimum(kept, len(weights) - 1))
        z = latent[kept] @ problem.kernel_factor.T
        mean = problem.readout_variance * problem.nonlinearity(z) @ self.field
        return z, mean + math.sqrt(problem.readout_variance) * rng.standard_normal(mean.shape)

    def _weighted(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws g of EP's mixture, (n, q), and their importance weights for the exact law, (n,)."""
        problem, found = self.point.problem, self.point.branches
        latent, log_joint = self._candidates(n, rng)
        tilt = ((problem.nonlinearity(latent @ problem.kernel_factor.T) @ self.field) ** 2).sum(1)
        log_weights = 0.5 * problem.readout_variance * tilt - 0.5 * (latent**2).sum(1)
        weights = softmax(log_weights - logsumexp(log_joint, axis=1))
        imposed = np.log(self.branches.probabilities)
        belonging = softmax(log_joint - imposed + found.log_partition[self._order], axis=1)
        return latent, self.point.mixing.imposed(weights, belonging, self.branches.probabilities)

    def _candidates(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws g of EP's mixture, (n, q), and the log density of each branch there, (n, B)."""
        found, rank = self.point.branches, self.point.problem.kernel_factor.shape[1]
        means = found.latent_mean[self._order, :rank]
        roots = found.latent_root[self._order, :rank, :rank]  # Cholesky: the leading block is that of g
        chosen = rng.choice(len(means), size=n, p=self.branches.probabilities)
        latent = np.empty((n, rank))
        for b, (mean, root) in enumerate(zip(means, roots, strict=True)):
            member = np.flatnonzero(chosen == b)
            latent[member] = mean + rng.standard_normal((len(member), rank)) @ root.T
        log_joint = np.empty((n, len(means)))
        for b, (mean, root) in enumerate(zip(means, roots, strict=True)):
            white = np.linalg.solve(root, (latent - mean).T)
            log_det = np.log(np.diagonal(root)).sum()
            log_joint[:, b] = np.log(self.branches.probabilities[b]) - 0.5 * (white**2).sum(0) - log_det
        return latent, log_joint

    @cached_property
    def confirmation(self) -> Confirmation:
        """What exact neurons say of this solution: what EP's residual cannot see."""
        return confirm(self.point, self.kernel_parts(1).total, seed=self.point.problem.seed)

    @cached_property
    def _ensemble(self) -> tuple[Array, NeuronEnsemble]:
        """Drawn neurons, and what they answer."""
        problem = self.point.problem
        z, readouts = self.draw(_N_NEURONS, 1, np.random.default_rng(problem.seed))
        assert readouts is not None
        outputs = problem.targets - problem.noise * self.field
        weights = np.full(len(z), 1.0 / len(z))
        return z, NeuronEnsemble(problem.nonlinearity(z), readouts, weights, outputs, problem.noise)

    def training_variance(self) -> Array:
        return self._ensemble[1].training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        problem = self.point.problem
        z, ensemble = self._ensemble
        weights, rest = inputs.regression(problem.kernel_factor)
        latent = z @ np.linalg.pinv(problem.kernel_factor).T
        spread = np.maximum(np.diagonal(rest), 0.0)
        return ensemble.predict(problem.nonlinearity, latent @ weights.T, spread)

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        found, phi = self.point.branches, self.point.problem.nonlinearity
        weights, rest = inputs.regression(self.point.problem.kernel_factor)
        total, rank = np.zeros_like(rest), weights.shape[1]
        for probability, b in zip(self.branches.probabilities, self._order, strict=True):
            spread = weights @ found.latent_root[b][:rank]
            mean, covariance = weights @ found.latent_mean[b, :rank], spread @ spread.T + rest
            activation = gaussian_mean(phi, mean, np.diagonal(covariance), phi.gaussian_rule)
            total += probability * gaussian_covariance(phi, mean, covariance, phi.gaussian_rule)
            total += probability * np.outer(activation, activation)
        return total
