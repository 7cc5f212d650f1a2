"""A convex function under convex constraints: sequential quadratic programming.

Each step minimises the quadratic model of the Lagrangian on the linearised constraints, through
the dual of that problem: non-negative least squares with one unknown a constraint. Constraints may
come and go from one point to the next, as those of a maximum over directions do.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from attrs import frozen
from scipy.optimize import nnls

from fltheory.numerics.newton import Evaluation
from fltheory.numerics.validation import Array

_SHRINK = 0.4
_MOST_TRIALS = 8
_PENALTY = 1.5  # over the sum of the multipliers: then the penalty is exact
_ROUNDING = 1e-10
_FEASIBLE = 1e-7  # excess that counts as none


class CurvedEvaluation(Evaluation, Protocol):
    """A function at one point, whose Hessian can be solved with more curvature added to it."""

    def solve(self, right: Array, curvature: Array) -> Array:
        """(f''(x) + W W^T)^{-1} b for b of the shape of x with an axis (k,) added, W (x.size, r)."""


class Constraint(Protocol):
    """One constraint g(x) <= 0 at a point."""

    @property
    def excess(self) -> float:
        """g(x)."""

    @property
    def gradient(self) -> Array:
        """g'(x), of the shape of x."""

    @property
    def curvature(self) -> Array:
        """W with g''(x) = W W^T, (x.size, r)."""


_C = TypeVar("_C", bound=Constraint)


@frozen(eq=False)
class ConstrainedPoint(Generic[_C]):
    """A function and its constraints at one point, with a multiplier for each constraint.

    Attributes
    ----------
    gap
        Gradient of the Lagrangian f + sum_k multiplier_k g_k, of the shape of x.
    """

    x: Array
    here: CurvedEvaluation
    constraints: Sequence[_C]
    multipliers: Array

    @property
    def gap(self) -> Array:
        pull = sum((m * c.gradient for m, c in self._weighted), start=np.zeros_like(self.x))
        return np.asarray(self.here.gradient + pull)

    @property
    def residual(self) -> float:
        """Largest absolute entry of the gap."""
        return float(np.abs(self.gap).max())

    @property
    def excess(self) -> float:
        """By how much the worst constraint is violated."""
        return max([0.0, *(c.excess for c in self.constraints)])

    def merit(self, penalty: float) -> float:
        """The exact penalty function."""
        return self.here.value + penalty * self.excess

    def step(self) -> tuple[Array, Array]:
        """Minimum of the quadratic model on the linearised constraints, and its multipliers.

        Only the constraints that bind are solved for; those that the step would violate join them.
        """
        kept = [np.sqrt(m) * c.curvature for m, c in self._weighted if m > 0]
        curvature = np.concatenate([np.empty((self.x.size, 0)), *kept], axis=1)
        free = step = -self.here.solve(self.here.gradient[..., None], curvature)[..., 0]
        n = len(self.constraints)
        normals = (
            np.stack([c.gradient for c in self.constraints], axis=-1) if n else np.empty((*step.shape, 0))
        )
        flat, excess = normals.reshape(self.x.size, n), np.array([c.excess for c in self.constraints])
        binding, solved, multipliers = np.zeros(0, dtype=int), np.empty_like(normals), np.zeros(n)
        joining = np.flatnonzero((self.multipliers > 0) | (excess + flat.T @ step.ravel() > 0))
        while joining.size:
            solved[..., joining] = self.here.solve(normals[..., joining], curvature)
            binding = np.concatenate([binding, joining])
            responses = flat[:, binding].T @ solved.reshape(self.x.size, n)[:, binding]
            reached = excess[binding] + flat[:, binding].T @ free.ravel()
            multipliers[binding] = _dual_minimum(responses, reached)
            step = free - solved[..., binding] @ multipliers[binding]
            violated = excess + flat.T @ step.ravel() > _ROUNDING
            joining = np.setdiff1d(np.flatnonzero(violated), binding)
        return step, multipliers

    @property
    def _weighted(self) -> Iterator[tuple[float, _C]]:
        return zip(self.multipliers, self.constraints, strict=True)


def _dual_minimum(responses: Array, reached: Array) -> Array:
    """The m >= 0 that minimises m.R m / 2 - m.r."""
    values, vectors = np.linalg.eigh(0.5 * (responses + responses.T))
    root = np.sqrt(np.maximum(values, _ROUNDING * values[-1]))  # constraints may be nearly the same
    return np.asarray(nnls(root[:, None] * vectors.T, (vectors.T @ reached) / root)[0])


@frozen(eq=False)
class ConstrainedMinimum(Generic[_C]):
    """Where ``minimise_constrained`` stopped.

    Attributes
    ----------
    point
        The last point, with multipliers.
    path
        f at every accepted point.
    converged
        Whether the residual is below the tolerance and no constraint is violated.
    """

    point: ConstrainedPoint[_C]
    path: tuple[float, ...]
    converged: bool


def minimise_constrained(
    evaluate: Callable[[Array], CurvedEvaluation],
    constraints: Callable[[Array], Sequence[_C]],
    start: Array,
    *,
    tolerance: float,
    max_iterations: int = 50,
    radius: float = np.inf,
    report: Callable[[float], None] = lambda residual: None,
) -> ConstrainedMinimum[_C]:
    """Minimise a convex function under convex constraints.

    Parameters
    ----------
    evaluate
        The function with its first two derivatives; a value of infinity refuses a point.
    constraints
        Those that may matter at x; not the same in number at each x.
    tolerance
        On the largest absolute entry of the Lagrangian's gradient.
    radius
        Largest norm of a row (along the last axis) of a step, at first.
    """
    first = constraints(start)
    point = ConstrainedPoint(start, evaluate(start), first, np.zeros(len(first)))
    path, penalty = [point.here.value], 0.0
    for _ in range(max_iterations):
        step, multipliers = point.step()
        point = ConstrainedPoint(point.x, point.here, point.constraints, multipliers)
        report(point.residual)
        if _is_solved(point, tolerance):
            break
        penalty = max(penalty, _PENALTY * float(multipliers.sum()))
        length = min(1.0, radius / max(float(np.linalg.norm(step, axis=-1).max()), 1e-300))
        moved = _search(evaluate, constraints, point, step, length, penalty)
        if moved is None:
            break
        taken, point = moved
        reach = taken * float(np.linalg.norm(step, axis=-1).max())
        radius = 2.0 * radius if taken == length else max(reach, 0.3 * radius)
        path.append(point.here.value)
    return ConstrainedMinimum(point, tuple(path), _is_solved(point, tolerance))


def _is_solved(point: ConstrainedPoint[_C], tolerance: float) -> bool:
    return point.residual < tolerance and point.excess < _FEASIBLE


def _search(
    evaluate: Callable[[Array], CurvedEvaluation],
    constraints: Callable[[Array], Sequence[_C]],
    point: ConstrainedPoint[_C],
    step: Array,
    length: float,
    penalty: float,
) -> tuple[float, ConstrainedPoint[_C]] | None:
    """The first point along the step with a lower merit, or one nearer to the solution; or None."""
    merit = point.merit(penalty)
    for _ in range(_MOST_TRIALS):
        x = point.x + length * step
        here = evaluate(x)
        if np.isfinite(here.value):
            found = constraints(x)
            trial = ConstrainedPoint(x, here, found, _inherited(point, found))
            nearer = trial.residual < 0.5 * point.residual and trial.excess <= max(point.excess, 1e-3)
            if trial.merit(penalty) < merit + _ROUNDING * abs(merit) or nearer:
                return length, trial
        length *= _SHRINK
    return None


def _inherited(point: ConstrainedPoint[_C], found: Sequence[_C]) -> Array:
    """Each multiplier goes to the new constraint whose gradient is most like that of the old one."""
    multipliers = np.zeros(len(found))
    if found:
        new = np.stack([c.gradient.ravel() / np.linalg.norm(c.gradient) for c in found])
        for multiplier, old in zip(point.multipliers, point.constraints, strict=True):
            multipliers[int((new @ old.gradient.ravel()).argmax())] += multiplier
    return multipliers
