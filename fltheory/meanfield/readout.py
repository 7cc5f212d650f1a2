"""Solving for the dual field: Newton steps within a trust radius, and where to start them.

A step minimises the branches' model of S, then EP says what S is there. Branches that appear or
get lost on the way show as violations of convexity (docs/theory.md, section 5).
"""

from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.dual import BranchModel, DualPoint, DualProblem, evaluate
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array

_FRESH = 0.05  # residual above which every code is tried again at each step
_LOST = 0.02  # log Z below its convex bound by this much means that a branch was lost
_FIRST_RADIUS, _LARGEST_RADIUS = 1.5, 5.0
_POWERS = (1.0, 0.75, 0.5, 0.25)
_ON_THE_WAY = 1e-3  # tolerance at the N T that are only passed through
_MEMORY = 5  # steps that are combined near the solution
_PATIENCE = 12  # steps without halving the residual after which a search gives up
_HOT = 8.0  # N T at which the lazy kernel nearly solves the problem
_COOLING = 0.4

Report = Callable[[float], None]


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
                earlier, lately = residuals[:-_PATIENCE], residuals[-_PATIENCE:]
                if earlier and min(lately) > 0.5 * min(earlier):
                    return point
                point, searched = self._step(point), False
            elif searched:
                return point
            else:
                point, searched = self._fresh(point.field, point.sites, residual=point.residual), True
            if point is None:
                return last
        return point

    def track(self, field: Array, sites: Array, *, tolerance: float, max_iterations: int) -> DualPoint | None:
        """Like ``run`` with the branches of these sites alone, for problems that differ little."""
        point = evaluate(self.problem, field, sites, residual=0.1)
        for _ in range(max_iterations):
            moved = None if point is None or point.residual < tolerance else self._step(point)
            if moved is None:
                break
            point = moved
        return point

    def _fresh(
        self,
        field: Array,
        sites: Array | None,
        *,
        residual: float,
        max_iterations: int = 100,
        damping: float = 1.0,
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
        least = point.mixing.log_sum(tangents) - _LOST - 1e-3 * abs(predicted)
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

    def run(
        self, *, tolerance: float, max_iterations: int, report: Report
    ) -> tuple[DualPoint | None, list[float]]:
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
    n_powers: int = len(_POWERS),
    tolerance: float,
    max_iterations: int,
    report: Report = lambda residual: None,
) -> DualResult:
    """Solve, trying in turn the given start, a direct start, power EP, and a path of falling N T.

    ``only_start`` tries the given start alone, ``n_powers`` limits how many powers of EP are tried.
    """
    best = DualResult(None, [], [])
    attempts = [] if start is None else _from(problem, start)
    for attempt in attempts if only_start else [*attempts, *_attempts(problem, n_powers)]:
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
        Attempt(
            f"the given start at power {power:g}", start.field, start.sites, [evolve(problem, power=power)]
        )
        for power in _POWERS[:3]
    ]


def _attempts(problem: DualProblem, n_powers: int) -> Iterator[Attempt]:
    """From scratch, in the order of cost."""
    simple = problem.starting_field()
    stages = [evolve(problem, power=power) for power in _POWERS[:n_powers]]
    if simple is not None:
        for stage in stages:
            yield Attempt(f"a direct start at power {stage.power:g}", simple, None, [stage])
    for stage in stages if simple is None or n_powers == len(_POWERS) else []:
        path = [evolve(stage, noise=noise) for noise in _cooling(problem.noise)]
        yield Attempt(f"a path of falling N T at power {stage.power:g}", path[0].lazy_field(), None, path)


def _cooling(noise: float) -> list[float]:
    """N T from where the lazy kernel's field is a start down to the target."""
    path = [_HOT]
    while path[-1] * _COOLING > max(noise, 1e-4):
        path.append(path[-1] * _COOLING)
    return [*path, noise]
