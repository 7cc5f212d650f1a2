"""The convex function S(t) of the dual field of the readout layer, docs/theory.md (5) and (8).

S(t) = -tr t^T Y + N T |t|^2 / 2 + log Z(t). EP gives log Z as a sum over branches, each with its
value, slope and curvature: at any t, S and its gradient, and nearby the log-sum-exp of the
branches' parabolas (docs/theory.md, section 5), along which probabilities may change.
"""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.branches import (
    code_patterns,
    covers_others,
    distinct,
    is_physical,
    mode_sites,
)
from fltheory.meanfield.ep import BranchMoments, JointEP
from fltheory.meanfield.fractions import ImposedFractions, Mixing
from fltheory.meanfield.sampled_branch import SampledBranch
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.positive import LowRankPlusBlocks
from fltheory.numerics.validation import Array

_UNSETTLED = 1e-3  # change of moments above which EP has not found a branch
_SPANNED = 1e-6  # relative second moment of targets along a direction below which they do not span it
_NEGLIGIBLE = 1e-9  # weight of a branch that the Newton matrix leaves out


@frozen(eq=False)
class DualProblem:
    """Minimise S(t) for a bounded phi.

    Attributes
    ----------
    kernel_factor
        F (P, q) with K_{L-1} = F F^T.
    targets
        Y (P, m).
    noise
        N T.
    readout_variance
        sigma_a^2.
    seed
        Of the search for branches.
    power
        Of EP.
    fractions
        Imposed shares of codes; None: found.
    sampled
        Branches that EP cannot hold, in place of all that it has of their codes.
    """

    kernel_factor: Array
    targets: Array
    noise: float
    readout_variance: float
    nonlinearity: Nonlinearity
    seed: int = 0
    power: float = 1.0
    fractions: ImposedFractions | None = None
    sampled: tuple[SampledBranch, ...] = ()

    def ep(self, field: Array) -> JointEP:
        """EP at a dual field."""
        return JointEP(self.kernel_factor, field, self.readout_variance, self.nonlinearity, self.power)

    @cached_property
    def _patterns(self) -> Array:
        return code_patterns(self.targets)

    def starting_sites(self, field: Array) -> Array:
        """EP sites of every branch that a search from scratch finds at this t, (5, B, P)."""
        return mode_sites(
            self.kernel_factor, field, self.readout_variance, self.nonlinearity, self._patterns, self.seed
        )

    def mixing(self, activations: Array) -> Mixing | None:
        """How branches of these mean activations (B, P) add up; None if one that takes part is lost."""
        if self.fractions is None:
            return Mixing.free(len(activations))
        mixing = self.fractions.mixing(activations)
        return None if self.fractions.missing(mixing) else mixing

    def starting_field(self) -> Array | None:
        """t from which codes for these targets are found at any N T; None where all targets are zero.

        For one-hot targets 1.6 over the share of its class on an input's own class, less 1.2 everywhere;
        others, rotated, centred, of one output or real, by the regression that makes them one-hot:
        docs/theory.md (10t).
        """
        p = len(self.targets)
        moment = self.targets.T @ self.targets / p
        if not moment.any():
            return None
        separated = self.targets @ np.linalg.pinv(moment, rcond=_SPANNED, hermitian=True)
        return np.asarray((1.6 * separated - 1.2 * separated.mean(0)) * np.trace(moment))

    def lazy_field(self) -> Array:
        """t of the lazy kernel, (N T + sigma_a^2 K)^{-1} Y: where codes do not count yet."""
        prior = self.nonlinearity.gaussian_kernel(self.kernel_factor @ self.kernel_factor.T)
        kernel = self.readout_variance * prior + self.noise * np.eye(len(prior))
        return np.asarray(np.linalg.solve(kernel, self.targets))


@frozen(eq=False)
class DualPoint:
    """S and its derivatives at one t.

    Attributes
    ----------
    field
        t, (P, m).
    sites
        EP sites of the branches but the sampled ones, (5, B', P).
    branches
        Moments of all, the sampled ones last.
    mixing
        How they add up.
    value
        S.
    gap
        Y - N T t - <phi a^T>, minus the gradient of S, (P, m).
    dropped
        How many branches were left out as unphysical.
    """

    problem: DualProblem
    field: Array
    sites: Array
    branches: BranchMoments
    mixing: Mixing
    value: float
    gap: Array
    dropped: int

    @property
    def residual(self) -> float:
        """Largest absolute entry of the gap."""
        return float(np.abs(self.gap).max())

    @cached_property
    def log_partition(self) -> float:
        """log Z(t), of all branches."""
        return self.mixing.log_sum(self.branches.log_partition)

    @cached_property
    def probabilities(self) -> Array:
        """P_gamma, (B,)."""
        return self.mixing.weights(self.branches.log_partition)


def evaluate(
    problem: DualProblem,
    field: Array,
    sites: Array,
    *,
    residual: float,
    damping: float = 1.0,
    max_iterations: int = 200,
) -> DualPoint | None:
    """Run EP at ``field`` from ``sites``, as accurately as a point of this residual deserves.

    Returns None where no branch converges, or one of an imposed code is lost.
    """
    tolerance = min(1e-5, max(1e-3 * residual**2, 1e-9)) if residual < 0.3 else 1e-5
    ep = problem.ep(field)
    sites, change = ep.run(sites, tolerance=tolerance, max_iterations=max_iterations, damping=damping)
    moments = ep.moments(sites, change)
    separation = 0.1 if tolerance < 1e-6 else 0.3
    kept = distinct(moments, separation=separation, worst_change=_UNSETTLED)
    for branch in problem.sampled:
        kept = kept[~branch.region.contains(moments.activations[kept])]
    if not kept.size:
        return None
    found = moments.select(kept)
    physical = is_physical(found, problem.readout_variance) & ~covers_others(found)
    dropped = int((~physical).sum()) if physical.any() else 0
    kept = kept[physical] if physical.any() else kept
    branches = BranchMoments.together(
        [moments.select(kept), *(branch.moments(field) for branch in problem.sampled)]
    )
    mixing = problem.mixing(branches.activations)
    if mixing is None:
        return None
    weights = mixing.weights(branches.log_partition)
    noise = problem.noise
    value = 0.5 * noise * np.sum(field**2) - np.sum(field * problem.targets)
    value += mixing.log_sum(branches.log_partition)
    gap = problem.targets - noise * field - np.tensordot(weights, branches.outputs, 1)
    return DualPoint(problem, field, sites[:, kept], branches, mixing, float(value), gap, dropped)


@frozen(eq=False)
class _ModelPoint:
    """The model of S at t + x, as an ``Evaluation`` of the Newton solver."""

    model: "BranchModel"
    value: float
    gradient: Array
    weights: Array
    slopes: Array  # (B, P, m): derivative of each branch's log weight

    def newton_step(self) -> Array:
        deviations = self.model.point.mixing.centred(self.weights, self.slopes)
        return -self.model.hessian(self.weights, deviations).solve(self.gradient)


@frozen(eq=False)
class BranchModel:
    """S(t + x) with every branch's log weight replaced by its parabola in x."""

    point: DualPoint
    regularisation: float = 0.0

    @cached_property
    def _factors(self) -> list[Array]:
        scale = math.sqrt(self.point.problem.readout_variance)
        return [self.point.branches.output_factor(b, scale) for b in range(len(self.point.branches))]

    def __call__(self, x: Array) -> _ModelPoint:
        point, branches = self.point, self.point.branches
        curvature = np.empty_like(branches.outputs)
        for b, factor in enumerate(self._factors):
            curvature[b] = (factor @ (factor.T @ x.ravel())).reshape(x.shape)
        along = np.einsum("pm,bm->bp", x, branches.readout)
        curvature += (branches.unexplained * along)[..., None] * branches.readout[:, None, :]
        growth = np.einsum("bpm,pm->b", branches.outputs + 0.5 * curvature, x)
        log_weights = branches.log_partition + growth
        weights, slopes = point.mixing.weights(log_weights), branches.outputs + curvature
        noise, targets, field = point.problem.noise, point.problem.targets, point.field + x
        value = 0.5 * noise * np.sum(field**2) - np.sum(field * targets)
        value += point.mixing.log_sum(log_weights)
        gradient = noise * field - targets + np.tensordot(weights, slopes, 1)
        return _ModelPoint(self, float(value), gradient, weights, slopes)

    def hessian(self, weights: Array, deviations: Array) -> LowRankPlusBlocks:
        """N T + Cov(phi a^T): within branches, and between them from the slopes' deviations."""
        branches, n_outputs = self.point.branches, self.point.field.shape[1]
        kept = np.flatnonzero(weights > _NEGLIGIBLE)
        root = np.sqrt(weights[kept])
        between = (root[:, None] * deviations[kept].reshape(len(kept), -1)).T
        within = [r * self._factors[b] for r, b in zip(root, kept, strict=True)]
        readout = branches.readout[kept]
        spread = np.einsum("b,bp->bp", weights[kept], branches.unexplained[kept])
        blocks = np.einsum("bp,bi,bj->pij", spread, readout, readout)
        blocks += (self.point.problem.noise + self.regularisation) * np.eye(n_outputs)
        return LowRankPlusBlocks(np.concatenate([*within, between], axis=1), blocks)
