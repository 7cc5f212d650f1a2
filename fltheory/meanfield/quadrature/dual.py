"""S(t) on points in a that stay where they are while t changes, which makes it exactly convex in t."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp

from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.proposal import Proposal
from fltheory.meanfield.quadrature.sites import IndependentSites
from fltheory.numerics.validation import Array
from fltheory.numerics.weights import relative_ess


@frozen(eq=False)
class GroupedDual:
    """S(t) on frozen points, t having one row a group; called with t it gives an ``Evaluation``.

    Its gradient counts each group once: it is that of S over the group's number of inputs.
    """

    groups: GroupedTargets
    sites: IndependentSites
    noise: float
    readout_variance: float
    proposal: Proposal
    least_ess: float = 0.0

    def log_weights(self, field: Array) -> tuple[Array, Array, Array]:
        """Importance weights of the points at t, and <phi>, Var phi there: (S,), (S, G), (S, G)."""
        points = self.proposal.points
        log_z, mean, variance = self.sites.cumulants(points @ field.T)
        prior = -0.5 * (points**2).sum(1) / self.readout_variance
        prior -= 0.5 * points.shape[1] * math.log(2 * math.pi * self.readout_variance)
        return log_z @ self.groups.counts + prior - self.proposal.log_density, mean, variance

    def __call__(self, field: Array) -> "GroupedEvaluation":
        log_weights, mean, variance = self.log_weights(field)
        mixing, log_shares = self.proposal.mixing, np.log(np.maximum(self.proposal.shares, 1e-300))
        log_each = log_weights[:, None] + log_shares - math.log(len(log_weights))
        log_branches = logsumexp(log_each, axis=0)
        log_z = mixing.log_sum(log_branches)
        branch_weights = np.exp(log_each - log_branches) * mixing.weights(log_branches)
        weights = branch_weights.sum(1)
        points, counts, targets = self.proposal.points, self.groups.counts, self.groups.targets
        if relative_ess(weights) < self.least_ess:
            log_z = math.inf  # the points say nothing of this t: no step goes there
        value = log_z + float(counts @ (0.5 * self.noise * field**2 - field * targets).sum(1))
        outputs = mean.T @ (weights[:, None] * points)
        gradient = self.noise * field - targets + outputs
        return GroupedEvaluation(self, value, gradient, log_z, branch_weights, mean, variance, outputs)


@frozen(eq=False)
class GroupedEvaluation:
    """S and its derivatives at one t, with the weights (S, B) of the points in each branch."""

    dual: GroupedDual
    value: float
    gradient: Array
    log_partition: float
    branch_weights: Array
    mean: Array
    variance: Array
    outputs: Array

    @cached_property
    def weights(self) -> Array:
        """Of the points, (S,), of sum 1."""
        return np.asarray(self.branch_weights.sum(1))

    @property
    def relative_ess(self) -> float:
        """Effective share of the points."""
        return relative_ess(self.weights)

    @property
    def sampling_error(self) -> float:
        """A bound on the error of log Z: that of as many random points."""
        return 3.0 / math.sqrt(self.relative_ess * len(self.weights))

    def newton_step(self) -> Array:
        root = np.sqrt(self.dual.groups.counts)[:, None]
        step = np.linalg.solve(self.hessian(), -(root * self.gradient).ravel())
        return np.asarray(step.reshape(self.gradient.shape) / root, dtype=np.float64)

    def hessian(self) -> Array:
        """Second derivative of S in sqrt(n) t, (G m, G m)."""
        n_groups, m = self.gradient.shape
        scale = np.repeat(np.sqrt(self.dual.groups.counts), m)
        matrix = scale[:, None] * self.output_covariance() * scale
        matrix[np.diag_indices_from(matrix)] += self.dual.noise + 1e-12
        index = np.arange(n_groups)
        matrix.reshape(n_groups, m, n_groups, m)[index, :, index, :] += self.output_spread()
        return np.asarray(matrix)

    def output_covariance(self) -> Array:
        """Covariance over a of <phi>_a a^T of one input a group, (G m, G m), inside what mixes freely."""
        points, mixing = self.dual.proposal.points, self.dual.proposal.mixing
        outputs = (self.mean[:, :, None] * points[:, None, :]).reshape(len(points), -1)
        total = np.zeros((outputs.shape[1],) * 2)
        for group, share in enumerate(mixing.shares):
            weights = self.branch_weights[:, mixing.member == group].sum(1)
            centred = outputs - weights @ outputs / share
            total += centred.T @ (weights[:, None] * centred)
        return total

    def output_spread(self) -> Array:
        """<Var_a(phi) a a^T>, what each input has for itself, (G, m, m)."""
        points = self.dual.proposal.points
        spread = self.variance * self.weights[:, None]
        return np.asarray(np.einsum("sg,si,sj->gij", spread, points, points, optimize=True))


@frozen(eq=False)
class RootCounts:
    """S as a function of sqrt(n) t, (G, m): there a group of n inputs counts as a single one.

    Called with it, gives a ``CurvedEvaluation``.
    """

    dual: GroupedDual

    @property
    def root(self) -> Array:
        """sqrt(n), (G, 1)."""
        return np.asarray(np.sqrt(self.dual.groups.counts)[:, None])

    def __call__(self, scaled: Array) -> "RootCountsEvaluation":
        return RootCountsEvaluation(self.dual(scaled / self.root), self.root)


@frozen(eq=False)
class RootCountsEvaluation:
    """S and its derivatives at one sqrt(n) t."""

    grouped: GroupedEvaluation
    root: Array

    @property
    def value(self) -> float:
        return self.grouped.value

    @property
    def gradient(self) -> Array:
        return self.root * self.grouped.gradient

    def newton_step(self) -> Array:
        return -self.solve(self.gradient[..., None], np.empty((self.gradient.size, 0)))[..., 0]

    def solve(self, right: Array, curvature: Array) -> Array:
        matrix = self.grouped.hessian() + curvature @ curvature.T
        return np.asarray(np.linalg.solve(matrix, right.reshape(len(matrix), -1)).reshape(right.shape))
