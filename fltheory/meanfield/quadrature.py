"""A diagonal input kernel: the exact single-neuron posterior, docs/theory.md section 5.

Given the readout a the preactivations are independent, so log Z(t a) is a sum of one-dimensional
integrals, done on a uniform grid; what is left is an average over the m-dimensional a. It is taken
by importance sampling from a mixture of Gaussians, one a branch, at quasi-random points. The
points stay where they are while t changes, which makes S exactly convex in t. Inputs that share
their target and their variance share t, so there is one row of t a group of inputs. Where phi has a
slope at infinity, the domain of S is the constraint that no neuron condenses (``outliers``).
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax
from scipy.stats import norm, qmc

from fltheory.meanfield.branches import code_patterns, distinct_rows, neuron_states
from fltheory.meanfield.domain import DomainMinimum, minimise_anywhere, minimise_in_domain
from fltheory.meanfield.fractions import ImposedFractions, Mixing
from fltheory.meanfield.outliers import Ray, RaySearch
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.newton import minimise_batch
from fltheory.numerics.validation import Array

_NARROW, _WIDE = 1.15, 2.5  # widths of the Gaussians of the proposal, over the Laplace approximation
_COARSE, FINE = 1024, 8192  # points on the way, and at the solution
_COARSE_STEPS = 12  # after which the fine ones are taken in any case
_LEAST_ESS = 0.35  # relative effective sample size below which the points are drawn anew
_TRUSTED_ESS = 0.05  # and below which S is not believed
_JUMP = 0.05  # of S, more than the sampling error, that shows a missed branch
_FIRST_RADIUS, _LEAST_RADIUS = 1.5, 1e-3  # of a step in t on the same points
_CUT = 30.0  # log weight below the best mode at which one is left out of the proposal
_CUT_IMPOSED = 300.0  # and where shares are imposed
_HALF_WIDTH = 9.0  # of the range of z, in standard deviations
_TAIL = 12.0  # standard deviations of the prior over which points follow a neuron that grows
_SOFTEST = 0.02  # curvature of a mode, in units of the prior's, that its Gaussian has at least
_FLAT = 1e-3  # and below which it is the end of a ray, not a mode
_REACHES = (3.0, 6.0, 12.0, 24.0)  # standard deviations of the prior along a ray where modes are sought
_TAIL_SHARE = 0.3  # of the points

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

    @property
    def half_width(self) -> float:
        """Of the range of z, in standard deviations, with room for fields that pull a growing neuron."""
        return _HALF_WIDTH if self.nonlinearity.is_bounded else _HALF_WIDTH + 4 * _TAIL

    @cached_property
    def nodes(self) -> tuple[Array, Array]:
        """phi(z) and the logarithms of the weights, (G, K) each."""
        sd = np.sqrt(self.variances)
        rule = self.nonlinearity.gaussian_rule
        spacing = 0.15 if rule.is_uniform else 0.35  # between kinks the nodes are Gauss-Legendre's
        x, log_weights = rule(np.zeros_like(sd), sd, half_width=self.half_width, spacing=spacing)
        phi = np.asarray(self.nonlinearity(sd[:, None] * x))
        return phi, np.broadcast_to(log_weights, phi.shape)

    def cumulants(self, fields: Array) -> tuple[Array, Array, Array]:
        """log Z, <phi> and Var phi at fields h (S, G), each (S, G)."""
        result = np.empty((3, *fields.shape))
        for group, (h, activation, log_weights) in enumerate(zip(fields.T, *self.nodes, strict=True)):
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

    Where phi has a slope at infinity, a long one along each ray is added.

    Attributes
    ----------
    points, log_density
        a (S, m) and the mixture's log density there (S,).
    shares
        Probability that a point belongs to each branch, (S, B).
    modes, mode_weights
        The branches' modes, (B, m), and their probabilities where nothing is imposed, (B,).
    means, roots, weights
        The components of the mixture, for k rays: (2 B + k, m), (2 B + k, m, m), (2 B + k,).
    mixing
        How branches add up.
    """

    points: Array
    log_density: Array
    shares: Array
    modes: Array
    mode_weights: Array
    means: Array
    roots: Array
    weights: Array
    mixing: Mixing

    @classmethod
    def around(
        cls,
        modes: Array,
        roots: Array,
        log_weights: Array,
        mixing: Mixing,
        tails: Array,
        n_points: int,
        seed: int,
    ) -> Self:
        """Quasi-random points around modes with covariances root root^T, (B, m, m), and log weights (B,).

        The same sequence serves every component; a fifth of the points is spread evenly over
        branches, and a fifth of each branch's is wide, for densities that are not Gaussian. ``tails``
        are roots of Gaussians around the origin, (k, m, m).
        """
        n_branches, m = modes.shape
        weights = mixing.weights(log_weights)
        even = 0.8 * weights + 0.2 / n_branches
        means = np.concatenate([modes, modes, np.zeros((len(tails), m))])
        share = _TAIL_SHARE if len(tails) else 0.0
        weighted = (1.0 - share) * np.concatenate([0.8 * even, 0.2 * even])
        weighted = np.concatenate([weighted, np.full(len(tails), share / max(1, len(tails)))])
        roots_of_all = np.concatenate([_NARROW * roots, _WIDE * roots, tails])
        counts = (n_points * weighted).astype(int) + 1
        sequence = qmc.Sobol(m, seed=seed).random(1 << math.ceil(math.log2(counts.max())))
        standard = norm.ppf(np.clip(sequence, 1e-12, 1 - 1e-12))
        points = np.concatenate(
            [mean + standard[:n] @ root.T for mean, root, n in zip(means, roots_of_all, counts, strict=True)]
        )
        mixed = counts / counts.sum()
        log_density = logsumexp(log_mixture(points, means, roots_of_all, mixed), axis=1)
        free = softmax(log_weights)
        shares = branch_shares(points, modes, _NARROW * roots, free)
        return cls(points, log_density, shares, modes, free, means, roots_of_all, mixed, mixing)


def branch_shares(points: Array, modes: Array, roots: Array, weights: Array) -> Array:
    """Probability that each point (S, m) belongs to each of the Gaussian branches, (S, B)."""
    return np.asarray(softmax(log_mixture(points, modes, roots, weights), axis=1))


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
        mixing, log_shares = self.proposal.mixing, np.log(np.maximum(self.proposal.shares, 1e-300))
        log_each = log_weights[:, None] + log_shares - math.log(len(log_weights))
        log_branches = logsumexp(log_each, axis=0)
        log_z = mixing.log_sum(log_branches)
        branch_weights = np.exp(log_each - log_branches) * mixing.weights(log_branches)
        weights = branch_weights.sum(1)
        points, counts, targets = self.proposal.points, self.groups.counts, self.groups.targets
        if 1.0 / (weights**2).sum() < self.least_ess * len(weights):
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


def find_proposal(
    groups: GroupedTargets,
    sites: IndependentSites,
    field: Array,
    readout_variance: float,
    known_modes: Array,
    rays: Sequence[Ray],
    n_points: int,
    seed: int,
    fractions: ImposedFractions | None = None,
) -> Proposal:
    """Laplace mixture over all modes of a's density at t, from every code, known and random starts.

    The flat ends of ``rays``, along which a neuron condenses, are no modes. Modes share as imposed
    ``fractions`` say, if any.

    Raises
    ------
    ValueError
        If a code of them has no mode.
    """

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
    m = field.shape[1]
    random = np.random.default_rng(seed).standard_normal((16, m))
    spread = max(float(np.sqrt(readout_variance)), float(np.abs(starts).max()))
    scale = math.sqrt(readout_variance)
    along = [scale * reach * ray.direction for ray in rays for reach in _REACHES]
    starts = np.concatenate(
        [starts, known_modes, np.zeros((1, m)), spread * random, *np.reshape(along, (-1, 1, m))]
    )
    points, values, hessians, are_minima = minimise_batch(action, starts, max_step=max(2.0, 5 * scale))
    kept: list[int] = []
    cut = _CUT if fractions is None else _CUT_IMPOSED
    for index in np.argsort(values):
        near = np.linalg.norm(points[kept] - points[index], axis=1) < 0.3 * scale
        if are_minima[index] and not near.any() and values[index] < values.min() + cut:
            kept.append(int(index))
    curvature, modes = np.linalg.eigh(hessians[kept])
    if rays and (curved := curvature[:, 0] > _FLAT / readout_variance).any():
        kept, curvature, modes = list(np.array(kept)[curved]), curvature[curved], modes[curved]
    curvature = np.maximum(curvature, _SOFTEST / readout_variance)  # a flat mode is not infinitely wide
    roots = modes / np.sqrt(curvature)[:, None, :]
    log_weights = -values[kept] - 0.5 * np.log(curvature).sum(1)
    tails = np.reshape([scale * _stretched(ray) for ray in rays], (-1, m, m))
    mixing = Mixing.free(len(kept))
    if fractions is not None:
        activations = sites.cumulants(points[kept] @ field.T)[1][:, groups.member]
        mixing = fractions.mixing(activations)
        fractions.require(mixing, activations)
    return Proposal.around(points[kept], roots, log_weights, mixing, tails, n_points, seed)


def _stretched(ray: Ray) -> Array:
    """1 + (s - 1) u u^T with s^2 the variance of a neuron along the ray, as far as it is followed."""
    u = ray.direction
    along = min(_TAIL, 1.0 / math.sqrt(max(1.0 - ray.strength, 1e-9)))
    return np.asarray(np.eye(len(u)) + (along - 1.0) * np.outer(u, u))


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
        n_groups, m = self.gradient.shape
        scale = np.repeat(self.root.ravel(), m)
        matrix = scale[:, None] * self.grouped.output_covariance() * scale + curvature @ curvature.T
        matrix[np.diag_indices_from(matrix)] += self.grouped.dual.noise + 1e-12
        index = np.arange(n_groups)
        matrix.reshape(n_groups, m, n_groups, m)[index, :, index, :] += self.grouped.output_spread()
        return np.asarray(np.linalg.solve(matrix, right.reshape(n_groups * m, -1)).reshape(right.shape))


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
        n_fine: int = FINE,
        fractions: ImposedFractions | None = None,
    ) -> None:
        self.groups, self.n_fine, self.fractions = groups, n_fine, fractions
        self.sites = IndependentSites(groups.variances, nonlinearity)
        self.noise, self.readout_variance, self.seed = noise, readout_variance, seed
        self.n_points = _COARSE
        self.path: list[float] = []
        self.ray_search: RaySearch | None = None
        if not nonlinearity.is_bounded:
            factor = np.diag(np.sqrt(groups.variances))
            self.ray_search = RaySearch(factor, nonlinearity.asymptotic_slopes, readout_variance, seed)

    def run(
        self, field: Array, *, tolerance: float, max_iterations: int, report: Report
    ) -> tuple[GroupedEvaluation, DomainMinimum, bool]:
        """S at the last t, the step that led there, and whether it is a solution on points drawn for it.

        The rays of the step are those over groups, in the variable sqrt(n) t.
        """
        step = DomainMinimum(field, math.inf, math.inf, False, ())
        here = self._evaluate(step, np.empty((0, field.shape[1])))
        radius = _FIRST_RADIUS
        for index in range(max_iterations):
            self.path.append(here.value)
            found = self._minimise(here.dual, step, tolerance, radius)
            report(found.residual)
            there = self._evaluate(found, here.dual.proposal.modes)
            jump = _JUMP + here.sampling_error + there.sampling_error
            if there.value > here.value + jump:  # S is convex: here or there a branch was missed
                again = self._evaluate(step, there.dual.proposal.modes)
                radius = radius if again.value > here.value + jump else 0.3 * radius
                here = again
                if radius < _LEAST_RADIUS:
                    break
                continue
            moved, step, previous = np.abs(found.x - step.x).max(), found, here
            here = there
            fits = previous.relative_ess > min(_LEAST_ESS, 0.8 * there.relative_ess)
            if found.converged and fits and moved < 0.1:
                if self.n_points == self.n_fine:
                    return previous.dual(step.x), step, True
                self.n_points = self.n_fine
                here = self._evaluate(step, here.dual.proposal.modes)
            elif index == _COARSE_STEPS:  # too few points to settle on
                self.n_points = self.n_fine
        return here, step, False

    def _minimise(
        self, dual: GroupedDual, step: DomainMinimum, tolerance: float, radius: float
    ) -> DomainMinimum:
        """S on frozen points, within the domain of t."""
        if self.ray_search is None:
            return minimise_anywhere(dual, step.x, tolerance=tolerance, max_step=1.0, radius=radius)
        scaled = RootCounts(dual)
        largest = _FIRST_RADIUS * float(scaled.root.max())
        found = minimise_in_domain(
            scaled,
            self.ray_search,
            scaled.root * step.x,
            step.rays,
            tolerance=tolerance,
            radius=largest,
            thorough=self.n_points == self.n_fine,
        )
        outside = 1.0 if found.converged else max(1.0, found.rays[0].strength)
        move = found.x / scaled.root / math.sqrt(outside) - step.x  # to a point inside the domain
        share = min(1.0, radius / max(float(np.linalg.norm(move, axis=1).max()), 1e-300))
        return evolve(found, x=step.x + share * move, converged=found.converged and share == 1.0)

    def _evaluate(self, step: DomainMinimum, known_modes: Array) -> GroupedEvaluation:
        """S on points drawn for the t of a step, or for the nearest along it in the domain of S."""
        root = np.sqrt(self.groups.counts)[:, None]
        rays = [] if self.ray_search is None else self.ray_search(root * step.x, step.rays)
        inside = step.x / math.sqrt(max([1.0, *(ray.strength for ray in rays)]))
        proposal = find_proposal(
            self.groups,
            self.sites,
            inside,
            self.readout_variance,
            known_modes,
            rays,
            self.n_points,
            self.seed,
            self.fractions,
        )
        dual = GroupedDual(self.groups, self.sites, self.noise, self.readout_variance, proposal)
        here = dual(step.x)
        return evolve(here, dual=evolve(dual, least_ess=min(_TRUSTED_ESS, 0.5 * here.relative_ess)))
