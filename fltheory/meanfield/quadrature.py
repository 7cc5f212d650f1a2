"""A diagonal input kernel: the exact single-neuron posterior, docs/theory.md section 5.

Given the readout a the preactivations are independent, so log Z(t a) is a sum of one-dimensional
integrals, done on a uniform grid; what is left is an average over the m-dimensional a. It is taken
by importance sampling from a mixture of Gaussians, one a branch, at quasi-random points. The
points stay where they are while t changes, which makes S exactly convex in t. Inputs that share
their target and their variance share t, so there is one row of t a group of inputs.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Self

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax
from scipy.stats import norm, qmc

from fltheory.meanfield.branches import code_patterns, distinct_rows, neuron_states
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.gaussian import grid_for
from fltheory.numerics.newton import minimise, minimise_batch
from fltheory.numerics.validation import Array

_NARROW, _WIDE = 1.15, 2.5  # widths of the Gaussians of the proposal, over the Laplace approximation
_COARSE, _FINE = 1024, 8192  # points on the way, and at the solution
_COARSE_STEPS = 12  # after which the fine ones are taken in any case
_LEAST_ESS = 0.35  # relative effective sample size below which the points are drawn anew
_TRUSTED_ESS = 0.05  # and below which S is not believed
_JUMP = 0.05  # of S, more than the sampling error, that shows a missed branch
_FIRST_RADIUS = 1.5  # of a step in t on the same points
_CUT = 30.0  # log weight below the best mode at which one is left out of the proposal

Report = Callable[[float], None]


@frozen(eq=False)
class GroupedTargets:
    """Inputs that the theory cannot tell apart, taken together.

    Attributes
    ----------
    targets, variances, counts
        Row of Y (G, m), entry of diag K_0 (G,) and number of inputs (G,) of each group.
    member
        The group of each input, (P,).
    """

    targets: Array
    variances: Array
    counts: Array
    member: np.ndarray

    @classmethod
    def of(cls, targets: Array, variances: Array) -> Self:
        """Group the inputs of Y (P, m) and diag K_0 (P,)."""
        rows, member = distinct_rows(np.column_stack([targets, variances]))
        counts = np.bincount(member).astype(float)
        return cls(rows[:, :-1], rows[:, -1], counts, member)


@frozen(eq=False)
class IndependentSites:
    """log Z(h) and its derivatives, one input of each group at many fields h.

    Attributes
    ----------
    variances
        Of z in each group, (G,).
    """

    variances: Array
    nonlinearity: Nonlinearity

    @cached_property
    def nodes(self) -> tuple[Array, Array, Array]:
        """z (G, K), phi(z) (G, K), and the logarithms of the weights (K,)."""
        sd = np.sqrt(self.variances)
        x, log_weights = grid_for(float(sd.max()), half_width=9.0, spacing=0.15)
        z = sd[:, None] * x
        return z, self.nonlinearity(z), log_weights

    def cumulants(self, fields: Array) -> tuple[Array, Array, Array]:
        """log Z, <phi> and Var phi at fields h (S, G), each (S, G)."""
        _, phi, log_weights = self.nodes
        result = np.empty((3, *fields.shape))
        for group, (h, activation) in enumerate(zip(fields.T, phi, strict=True)):
            exponent = np.multiply.outer(h, activation) + log_weights
            peak = exponent.max(1)
            weights = np.exp(exponent - peak[:, None])
            total = weights.sum(1)
            mean = weights @ activation / total
            second = weights @ activation**2 / total
            result[:, :, group] = np.log(total) + peak, mean, np.maximum(second - mean**2, 0.0)
        return result[0], result[1], result[2]


@frozen(eq=False)
class Proposal:
    """Frozen points in a, under a mixture of two Gaussians a branch, a narrow and a wide one.

    Attributes
    ----------
    points, log_density
        a (S, m) and the mixture's log density there (S,).
    shares
        Probability that a point belongs to each branch, (S, B).
    modes
        The branches' modes, (B, m).
    means, roots, weights
        The components of the mixture: (2 B, m), (2 B, m, m), (2 B,).
    """

    points: Array
    log_density: Array
    shares: Array
    modes: Array
    means: Array
    roots: Array
    weights: Array

    @classmethod
    def around(cls, modes: Array, roots: Array, weights: Array, n_points: int, seed: int) -> Self:
        """Quasi-random points around modes with covariances root root^T, (B, m, m), and weights (B,).

        The same sequence serves every component; a fifth of the points is spread evenly over
        branches, and a fifth of each branch's is wide, for densities that are not Gaussian.
        """
        n_branches, m = modes.shape
        even = 0.8 * weights + 0.2 / n_branches
        means, weighted = np.concatenate([modes, modes]), np.concatenate([0.8 * even, 0.2 * even])
        roots_of_all = np.concatenate([_NARROW * roots, _WIDE * roots])
        counts = (n_points * weighted).astype(int) + 1
        sequence = qmc.Sobol(m, seed=seed).random(1 << math.ceil(math.log2(counts.max())))
        standard = norm.ppf(np.clip(sequence, 1e-12, 1 - 1e-12))
        points = np.concatenate(
            [mean + standard[:n] @ root.T for mean, root, n in zip(means, roots_of_all, counts, strict=True)]
        )
        mixed = counts / counts.sum()
        log_density = logsumexp(log_mixture(points, means, roots_of_all, mixed), axis=1)
        shares = softmax(log_mixture(points, modes, _NARROW * roots, weights), axis=1)
        return cls(points, log_density, shares, modes, means, roots_of_all, mixed)


def log_mixture(points: Array, means: Array, roots: Array, weights: Array) -> Array:
    """log weight plus log density of each Gaussian component at each point, (S, B)."""
    n_points, m = points.shape
    result = np.empty((n_points, len(means)))
    for b, (mean, root, weight) in enumerate(zip(means, roots, weights, strict=True)):
        white = np.linalg.solve(root, (points - mean).T)
        log_det = np.log(np.abs(np.linalg.det(root)))
        result[:, b] = np.log(max(weight, 1e-300)) - 0.5 * (white**2).sum(0) - log_det
    return np.asarray(result - 0.5 * m * math.log(2 * math.pi))


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
        log_z = float(logsumexp(log_weights)) - math.log(len(log_weights))
        weights = softmax(log_weights)
        points, counts, targets = self.proposal.points, self.groups.counts, self.groups.targets
        if 1.0 / (weights**2).sum() < self.least_ess * len(weights):
            log_z = math.inf  # the points say nothing of this t: no step goes there
        value = log_z + float(counts @ (0.5 * self.noise * field**2 - field * targets).sum(1))
        outputs = mean.T @ (weights[:, None] * points)
        gradient = self.noise * field - targets + outputs
        return GroupedEvaluation(self, value, gradient, log_z, weights, mean, variance, outputs)


@frozen(eq=False)
class GroupedEvaluation:
    """S and its derivatives at one t, with the weights of the points."""

    dual: GroupedDual
    value: float
    gradient: Array
    log_partition: float
    weights: Array
    mean: Array
    variance: Array
    outputs: Array

    @property
    def relative_ess(self) -> float:
        """Effective share of the points."""
        return float(1.0 / (self.weights**2).sum() / len(self.weights))

    @property
    def sampling_error(self) -> float:
        """A bound on the error of log Z: that of as many random points."""
        return 3.0 / math.sqrt(self.relative_ess * len(self.weights))

    def newton_step(self) -> Array:
        n_groups, m = self.gradient.shape
        matrix = self.output_covariance() * np.repeat(self.dual.groups.counts, m)
        matrix[np.diag_indices_from(matrix)] += self.dual.noise + 1e-12
        index = np.arange(n_groups)
        matrix.reshape(n_groups, m, n_groups, m)[index, :, index, :] += self.output_spread()
        step = np.linalg.solve(matrix, -self.gradient.ravel())
        return np.asarray(step.reshape(n_groups, m), dtype=np.float64)

    def output_covariance(self) -> Array:
        """Covariance over a of <phi>_a a^T of one input a group, (G m, G m)."""
        points = self.dual.proposal.points
        outputs = (self.mean[:, :, None] * points[:, None, :]).reshape(len(points), -1)
        centred = outputs - self.weights @ outputs
        return np.asarray(centred.T @ (self.weights[:, None] * centred))

    def output_spread(self) -> Array:
        """<Var_a(phi) a a^T>, what each input has for itself, (G, m, m)."""
        points = self.dual.proposal.points
        spread = self.variance * self.weights[:, None]
        return np.asarray(np.einsum("sg,si,sj->gij", spread, points, points, optimize=True))


def find_proposal(
    groups: GroupedTargets,
    sites: IndependentSites,
    field: Array,
    readout_variance: float,
    known_modes: Array,
    n_points: int,
    seed: int,
) -> Proposal:
    """Laplace mixture over all modes of a's density at t, from every code, known and random starts."""

    def action(a: Array) -> tuple[Array, Array, Array]:  # A(a) of (8'') with its derivatives
        log_z, mean, variance = sites.cumulants(a @ field.T)
        counts = groups.counts
        value = 0.5 * (a**2).sum(1) / readout_variance - log_z @ counts
        gradient = a / readout_variance - (mean * counts) @ field
        hessian = np.eye(a.shape[1]) / readout_variance
        return value, gradient, hessian - np.einsum("bg,gi,gj->bij", variance * counts, field, field)

    states = neuron_states(sites.nonlinearity, float(np.sqrt(sites.variances.max())))
    activations = np.asarray(sites.nonlinearity(states))[code_patterns(groups.targets).astype(int)]
    starts = readout_variance * (activations * groups.counts) @ field
    random = np.random.default_rng(seed).standard_normal((16, field.shape[1]))
    spread = max(float(np.sqrt(readout_variance)), float(np.abs(starts).max()))
    starts = np.concatenate([starts, known_modes, np.zeros((1, field.shape[1])), spread * random])
    scale = math.sqrt(readout_variance)
    points, values, hessians, are_minima = minimise_batch(action, starts, max_step=max(2.0, 5 * scale))
    kept: list[int] = []
    for index in np.argsort(values):
        near = np.linalg.norm(points[kept] - points[index], axis=1) < 0.3 * scale
        if are_minima[index] and not near.any() and values[index] < values.min() + _CUT:
            kept.append(int(index))
    curvature, modes = np.linalg.eigh(hessians[kept])
    curvature = np.maximum(curvature, 0.02 / readout_variance)  # a flat mode is not infinitely wide
    roots = modes / np.sqrt(curvature)[:, None, :]
    log_weights = -values[kept] - 0.5 * np.log(curvature).sum(1)
    return Proposal.around(points[kept], roots, softmax(log_weights), n_points, seed)


class GroupedSearch:
    """Minimise S over t, drawing the points anew while they fit t badly."""

    def __init__(
        self,
        groups: GroupedTargets,
        nonlinearity: Nonlinearity,
        *,
        noise: float,
        readout_variance: float,
        seed: int,
    ) -> None:
        self.groups = groups
        self.sites = IndependentSites(groups.variances, nonlinearity)
        self.noise, self.readout_variance, self.seed = noise, readout_variance, seed
        self.n_points = _COARSE
        self.path: list[float] = []

    def run(
        self, field: Array, *, tolerance: float, max_iterations: int, report: Report
    ) -> tuple[GroupedEvaluation, Array, bool]:
        """S at the last t, that t (G, m), and whether it is a solution on points drawn for it."""
        here = self._evaluate(field, np.empty((0, field.shape[1])))
        radius = _FIRST_RADIUS
        for step in range(max_iterations):
            self.path.append(here.value)
            found = minimise(here.dual, field, tolerance=tolerance, max_step=1.0, radius=radius)
            report(found.residual)
            there = self._evaluate(found.x, here.dual.proposal.modes)
            jump = _JUMP + here.sampling_error + there.sampling_error
            if there.value > here.value + jump:  # S is convex: here or there a branch was missed
                again = self._evaluate(field, there.dual.proposal.modes)
                radius = radius if again.value > here.value + jump else 0.3 * radius
                here = again
                continue
            moved, field, previous = np.abs(found.x - field).max(), found.x, here
            here = there
            fits = previous.relative_ess > min(_LEAST_ESS, 0.8 * there.relative_ess)
            if found.converged and fits and moved < 0.1:
                if self.n_points == _FINE:
                    return previous.dual(field), field, True
                self.n_points = _FINE
                here = self._evaluate(field, here.dual.proposal.modes)
            elif step == _COARSE_STEPS:  # too few points to settle on
                self.n_points = _FINE
        return here, field, False

    def _evaluate(self, field: Array, known_modes: Array) -> GroupedEvaluation:
        """S at t on points drawn for this t."""
        proposal = find_proposal(
            self.groups, self.sites, field, self.readout_variance, known_modes, self.n_points, self.seed
        )
        dual = GroupedDual(self.groups, self.sites, self.noise, self.readout_variance, proposal)
        here = dual(field)
        return evolve(here, dual=evolve(dual, least_ess=min(_TRUSTED_ESS, 0.5 * here.relative_ess)))
