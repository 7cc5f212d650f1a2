"""The convex problem for the dual field t of the readout layer, docs/theory.md (5) and (8).

S(t) = -tr t^T Y + N T |t|^2 / 2 + log Z(t) is minimised by Newton steps within a trust radius.
EP gives log Z as a sum over branches, each with its value, slope and curvature, so a step
minimises not a parabola but the log-sum-exp of the branches' parabolas (docs/theory.md,
section 5): probabilities may change along it.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.branches import code_patterns, covers_others, distinct, distinct_rows, is_physical, mode_sites
from fltheory.meanfield.ep import BranchMoments, JointEP
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.gaussian import gaussian_second_moment
from fltheory.numerics.positive import LowRankPlusBlocks
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array

_FRESH = 0.05  # residual above which every code is tried again at each step
_UNSETTLED = 1e-3  # change of moments above which EP has not found a branch
_LOST = 0.02  # log Z below its convex bound by this much means that a branch was lost
_NEGLIGIBLE = 1e-9  # weight of a branch that the Newton matrix leaves out
_FIRST_RADIUS, _LARGEST_RADIUS = 1.5, 5.0
_POWERS = (1.0, 0.75, 0.5, 0.25)
_ON_THE_WAY = 1e-3  # tolerance at the N T that are only passed through
_MEMORY = 5  # steps that are combined near the solution
_PATIENCE = 12  # steps without halving the residual after which a search gives up
_HOT = 8.0  # N T at which the lazy kernel nearly solves the problem
_COOLING = 0.4

Report = Callable[[float], None]


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
    """

    kernel_factor: Array
    targets: Array
    noise: float
    readout_variance: float
    nonlinearity: Nonlinearity
    seed: int = 0
    power: float = 1.0

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

    def starting_field(self) -> Array | None:
        """t that one-hot targets, however rotated, start from at any N T; None for other targets."""
        rows, member = distinct_rows(self.targets)
        overlap = rows @ rows.T
        norm = float(overlap.trace()) / len(rows)
        if norm == 0 or not np.allclose(overlap, norm * np.eye(len(rows)), atol=1e-9 * norm):
            return None
        one_hot = np.eye(len(rows))[member]
        return np.asarray((1.6 * one_hot / one_hot.mean(0) - 1.2) @ rows / norm)

    def lazy_field(self) -> Array:
        """t of the lazy kernel, (N T + sigma_a^2 K)^{-1} Y: what any targets start from."""
        prior = gaussian_second_moment(self.nonlinearity, self.kernel_factor @ self.kernel_factor.T)
        kernel = self.readout_variance * prior + self.noise * np.eye(len(prior))
        return np.linalg.solve(kernel, self.targets)


@frozen(eq=False)
class DualPoint:
    """S and its derivatives at one t.

    Attributes
    ----------
    field
        t, (P, m).
    sites
        EP sites of the branches, (5, B, P).
    branches
        Their moments.
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
        return float(logsumexp(self.branches.log_partition))

    @cached_property
    def probabilities(self) -> Array:
        """P_gamma, (B,)."""
        return np.asarray(softmax(self.branches.log_partition))


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

    Returns None where no branch converges.
    """
    tolerance = min(1e-5, max(1e-3 * residual**2, 1e-9)) if residual < 0.3 else 1e-5
    ep = problem.ep(field)
    sites, change = ep.run(sites, tolerance=tolerance, max_iterations=max_iterations, damping=damping)
    moments = ep.moments(sites, change)
    separation = 0.1 if tolerance < 1e-6 else 0.3
    kept = distinct(moments, separation=separation, worst_change=_UNSETTLED)
    if not kept.size:
        return None
    found = moments.select(kept)
    physical = is_physical(found, problem.readout_variance) & ~covers_others(found)
    dropped = int((~physical).sum()) if physical.any() else 0
    kept = kept[physical] if physical.any() else kept
    branches = moments.select(kept)
    weights = softmax(branches.log_partition)
    noise = problem.noise
    value = 0.5 * noise * np.sum(field**2) - np.sum(field * problem.targets)
    value += logsumexp(branches.log_partition)
    gap = problem.targets - noise * field - np.tensordot(weights, branches.outputs, 1)
    return DualPoint(problem, field, sites[:, kept], branches, float(value), gap, dropped)


@frozen(eq=False)
class _ModelPoint:
    """The model of S at t + x, as an ``Evaluation`` of the Newton solver."""

    model: "BranchModel"
    value: float
    gradient: Array
    weights: Array
    slopes: Array  # (B, P, m): derivative of each branch's log weight

    def newton_step(self) -> Array:
        mean = np.tensordot(self.weights, self.slopes, 1)
        return -self.model.hessian(self.weights, self.slopes - mean).solve(self.gradient)


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
        weights, slopes = softmax(log_weights), branches.outputs + curvature
        noise, targets, field = point.problem.noise, point.problem.targets, point.field + x
        value = 0.5 * noise * np.sum(field**2) - np.sum(field * targets) + logsumexp(log_weights)
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


def output_covariance(point: DualPoint) -> LowRankPlusBlocks:
    """N T + Cov(phi a^T) at a solution: the Hessian of S, (16) and (17)."""
    mean = np.tensordot(point.probabilities, point.branches.outputs, 1)
    model = BranchModel(point, regularisation=1e-12)
    return model.hessian(point.probabilities, point.branches.outputs - mean)


class DualSearch:
    """Newton iteration from one point to the solution of one problem."""

    def __init__(self, problem: DualProblem) -> None:
        self.problem = problem
        self.radius = _FIRST_RADIUS
        self.path: list[float] = []
        self._history: list[tuple[Array, Array]] = []

    def run(
        self, field: Array, sites: Array | None, *, tolerance: float, max_iterations: int, report: Report
    ) -> DualPoint | None:
        """Iterate until the residual is below tolerance with every code tried once more.

        Returns the last point, None if there is not even a first.
        """
        point = self._fresh(field, sites, residual=1.0, max_iterations=100)
        searched, residuals = True, list[float]()
        while point is not None and len(residuals) < max_iterations:
            last = point
            self.path.append(point.value)
            residuals.append(point.residual)
            report(point.residual)
            if point.residual >= tolerance:
                if len(residuals) > _PATIENCE and min(residuals[-_PATIENCE:]) > 0.5 * min(residuals[:-_PATIENCE]):
                    return point
                point, searched = self._step(point), False
            elif searched:
                return point
            else:
                point, searched = self._fresh(point.field, point.sites, residual=point.residual), True
            if point is None:
                return last
        return point

    def _fresh(
        self, field: Array, sites: Array | None, *, residual: float, max_iterations: int = 100, damping: float = 1.0
    ) -> DualPoint | None:
        """Evaluate with every code as a start, beside the sites at hand."""
        starts = self.problem.starting_sites(field)
        sites = starts if sites is None else np.concatenate([sites, starts], axis=1)
        return evaluate(
            self.problem, field, sites, residual=residual, max_iterations=max_iterations, damping=damping
        )

    def _step(self, point: DualPoint) -> DualPoint | None:
        """One step within the trust radius; None if there is no way on from here."""
        residual = point.residual
        model = BranchModel(point, regularisation=1e-3 * min(1.0, residual) ** 2 + 1e-9)
        for _ in range(8):
            step = minimise(
                model,
                np.zeros_like(point.field),
                tolerance=residual * (1e-3 if residual > _FRESH else 1e-6),
                max_iterations=12,
                radius=self.radius,
            )
            predicted = step.path[0] - step.value
            if residual < _FRESH:
                mixed = self._accelerated(point, step.x)
                if mixed is not None:
                    return mixed
            reach = min(self.radius, np.linalg.norm(step.x, axis=-1).max())
            trial = self._trial(point, step.x, predicted)
            if trial is None:
                self.radius = 0.4 * reach
                continue
            ratio = (point.value - trial.value) / max(predicted, 1e-300)
            at_rounding = abs(trial.value - point.value) < 1e-5 * max(1.0, abs(point.value)) * residual
            if ratio > 0.1 or (residual < _FRESH and at_rounding):
                if ratio > 0.6:
                    self.radius = min(2.0 * self.radius, _LARGEST_RADIUS)
                return trial
            completed = self._completed(point, trial)
            if completed is not None:
                return completed
            self.radius = 0.4 * reach
        return None

    def _accelerated(self, point: DualPoint, step: Array) -> DualPoint | None:
        """Anderson's combination of the last steps near the solution, if it lowers the residual.

        Where a branch is soft, EP's own log Z bends more than its Gaussians say and plain steps
        converge slowly.
        """
        self._history = [*self._history[-_MEMORY:], (point.field.ravel(), step.ravel())]
        if len(self._history) < 2:
            return None
        fields, steps = (np.stack(part) for part in zip(*self._history, strict=True))
        moves, changes = np.diff(fields, axis=0), np.diff(steps, axis=0)
        mixing = np.linalg.lstsq(changes.T, steps[-1], rcond=1e-10)[0]
        field = fields[-1] + steps[-1] - mixing @ (moves + changes)
        trial = evaluate(
            self.problem, field.reshape(point.field.shape), point.sites, residual=0.1 * point.residual
        )
        return trial if trial is not None and trial.residual < 0.5 * point.residual else None

    def _completed(self, point: DualPoint, trial: DualPoint) -> DualPoint | None:
        """The same point with the branches of a trial that it had missed; None if it missed none."""
        sites = np.concatenate([point.sites, trial.sites], axis=1)
        completed = evaluate(
            self.problem, point.field, sites, residual=point.residual, max_iterations=300, damping=0.5
        )
        if completed is None or completed.value < point.value + _LOST:
            return None
        return completed

    def _trial(self, point: DualPoint, x: Array, predicted: float) -> DualPoint | None:
        """The point at t + x; None if a branch is lost there, which shows as log Z below its tangents."""
        tangents = point.branches.log_partition + np.einsum("bpm,pm->b", point.branches.outputs, x)
        least = logsumexp(tangents) - _LOST - 1e-3 * abs(predicted)
        field, residual = point.field + x, point.residual
        if residual > _FRESH:
            trial = self._fresh(field, point.sites, residual=residual)
        else:
            trial = evaluate(self.problem, field, point.sites, residual=residual)
        if trial is None or trial.log_partition < least:
            trial = self._fresh(field, point.sites, residual=residual, max_iterations=300, damping=0.5)
        return None if trial is None or trial.log_partition < least else trial


@frozen(eq=False)
class Attempt:
    """Where to start from, and through which problems to go: the last is the one to solve."""

    words: str
    field: Array
    sites: Array | None
    stages: list[DualProblem]

    def run(self, *, tolerance: float, max_iterations: int, report: Report) -> tuple[DualPoint | None, list[float]]:
        """The last point of the last stage, None if it is not reached, and S along the way."""
        field, sites, path = self.field, self.sites, list[float]()
        point: DualPoint | None = None
        for stage in self.stages:
            last = stage is self.stages[-1]
            search = DualSearch(stage)
            point = search.run(
                field,
                sites,
                tolerance=tolerance if last else _ON_THE_WAY,
                max_iterations=max_iterations,
                report=report,
            )
            path += search.path
            if point is None or (not last and point.residual > 10 * _ON_THE_WAY):
                return (point, path) if last else (None, path)
            field, sites = point.field, point.sites
        return point, path


@frozen(eq=False)
class DualResult:
    """The best point found, S along the path to it, and what was tried in vain, in words."""

    point: DualPoint | None
    path: list[float]
    tried: list[str]

    def converged(self, tolerance: float) -> bool:
        """Whether the residual is below the tolerance."""
        return self.point is not None and self.point.residual < tolerance


def solve_dual(
    problem: DualProblem,
    *,
    start: DualPoint | None = None,
    only_start: bool = False,
    tolerance: float,
    max_iterations: int,
    report: Report = lambda residual: None,
) -> DualResult:
    """Solve, trying in turn the given start, a direct start, power EP, and a path of falling N T.

    ``only_start`` tries the given start alone.
    """
    best = DualResult(None, [], [])
    attempts = [] if start is None else _from(problem, start)
    for attempt in attempts if only_start else [*attempts, *_attempts(problem)]:
        point, path = attempt.run(tolerance=tolerance, max_iterations=max_iterations, report=report)
        if point is not None and (best.point is None or point.residual < best.point.residual):
            best = evolve(best, point=point, path=path)
        if best.converged(tolerance):
            break
        best.tried.append(attempt.words)
    return best


def _from(problem: DualProblem, start: DualPoint) -> list[Attempt]:
    """On from a solution of another problem."""
    return [
        Attempt(f"the given start at power {power:g}", start.field, start.sites, [evolve(problem, power=power)])
        for power in _POWERS[:3]
    ]


def _attempts(problem: DualProblem) -> Iterator[Attempt]:
    """From scratch, in the order of cost."""
    simple = problem.starting_field()
    stages = [evolve(problem, power=power) for power in _POWERS]
    for stage in stages if simple is not None else []:
        yield Attempt(f"a direct start at power {stage.power:g}", simple, None, [stage])
    for stage in stages:
        path = [evolve(stage, noise=noise) for noise in _cooling(problem.noise)]
        yield Attempt(f"a path of falling N T at power {stage.power:g}", path[0].lazy_field(), None, path)


def _cooling(noise: float) -> list[float]:
    """N T from where the lazy kernel's field is a start down to the target."""
    path = [_HOT]
    while path[-1] * _COOLING > max(noise, 1e-4):
        path.append(path[-1] * _COOLING)
    return [*path, noise]
