"""The posterior of a readout neuron as EP describes it: one Gaussian in (g, a) a branch."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp

from fltheory.meanfield.dual import DualPoint, output_covariance
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.numerics.gaussian import gaussian_covariance, gaussian_mean, gaussian_slope
from fltheory.numerics.validation import Array, Integers

_CANDIDATES = 10  # drawn from EP's mixture for each neuron that is kept
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
        slope = gaussian_slope(phi, mean, np.diagonal(covariance))
        beyond = gaussian_covariance(phi, mean, covariance) - np.outer(slope, slope) * covariance
        total = response @ response.T + beyond
        np.fill_diagonal(total, found.activation_variance[b])
        return np.asarray(total)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.asarray(self.point.problem.readout_variance * self.field @ self.field.T)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """EP's mixture, resampled by its importance weights, then a exactly given z."""
        factor = self.point.problem.kernel_factor
        variance, phi = self.point.problem.readout_variance, self.point.problem.nonlinearity
        latent, log_density = self._candidates(n * _CANDIDATES, rng)
        tilt = ((phi(latent @ factor.T) @ self.field) ** 2).sum(1)
        log_weights = 0.5 * variance * tilt - 0.5 * (latent**2).sum(1) - log_density
        weights = np.exp(log_weights - logsumexp(log_weights))
        kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
        kept = rng.permutation(np.minimum(kept, len(weights) - 1))
        z = latent[kept] @ factor.T
        mean = variance * phi(z) @ self.field
        return z, mean + math.sqrt(variance) * rng.standard_normal(mean.shape)

    def _candidates(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws g of EP's mixture, (n, q), and its log density there up to a constant, (n,)."""
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
        return latent, logsumexp(log_joint, axis=1)

    def training_variance(self) -> Array:
        noise = self.point.problem.noise  # C - C (C + N T)^{-1} C
        return noise - noise**2 * output_covariance(self.point).inverse_diagonal()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        found, problem = self.point.branches, self.point.problem
        weights, rest = inputs.regression(problem.kernel_factor)
        scale, rank, m = math.sqrt(problem.readout_variance), weights.shape[1], self.field.shape[1]
        n, probabilities = len(weights), self.point.probabilities
        outputs = np.empty((len(found), n, m))
        own = np.zeros((n, m))  # within branches: the variance of phi_* a
        cross = np.zeros((n * m, len(self.field) * m))
        for b, probability in enumerate(probabilities):
            root = found.latent_root[b]
            spread = weights @ root[:rank]  # loadings of z_* on the white latent, (n, q + m)
            mean = weights @ found.latent_mean[b, :rank]
            variance = np.maximum((spread**2).sum(1) + np.diagonal(rest), 0.0)
            activation = gaussian_mean(problem.nonlinearity, mean, variance)
            slope = gaussian_slope(problem.nonlinearity, mean, variance)
            second = gaussian_mean(lambda z: problem.nonlinearity(z) ** 2, mean, variance)
            loading = slope[:, None] * spread
            unexplained = np.maximum(second - activation**2 - (loading**2).sum(1), 0.0)
            readout = found.readout[b]
            outputs[b] = np.outer(activation, readout) + loading @ (scale * root[rank:]).T
            factor = loading[:, None, :] * readout[:, None] + activation[:, None, None] * scale * root[rank:]
            own += probability * ((factor**2).sum(-1) + unexplained[:, None] * readout**2)
            cross += probability * factor.reshape(n * m, -1) @ found.output_factor(b, scale).T
        mean = np.tensordot(probabilities, outputs, 1)
        between = outputs - mean
        trained = found.outputs - np.tensordot(probabilities, found.outputs, 1)
        own += np.tensordot(probabilities, between**2, 1)
        size = len(probabilities)
        cross += (probabilities[:, None] * between.reshape(size, -1)).T @ trained.reshape(size, -1)
        solved = output_covariance(self.point).solve(cross.T.reshape(*self.field.shape, -1))
        explained = (cross.T * solved.reshape(cross.T.shape)).sum(0).reshape(n, m)
        return mean, np.maximum(own - explained, 0.0)

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        found, phi = self.point.branches, self.point.problem.nonlinearity
        weights, rest = inputs.regression(self.point.problem.kernel_factor)
        total, rank = np.zeros_like(rest), weights.shape[1]
        for probability, b in zip(self.branches.probabilities, self._order, strict=True):
            spread = weights @ found.latent_root[b][:rank]
            mean, covariance = weights @ found.latent_mean[b, :rank], spread @ spread.T + rest
            activation = gaussian_mean(phi, mean, np.diagonal(covariance))
            total += probability * gaussian_covariance(phi, mean, covariance)
            total += probability * np.outer(activation, activation)
        return total
