"""Minimising S(t) where it is finite: on the set of t at which no neuron condenses, (14e)."""

from collections.abc import Callable, Sequence

import numpy as np
from attrs import field, frozen

from fltheory.meanfield.outliers import Ray, RaySearch
from fltheory.numerics.constrained import CurvedEvaluation, minimise_constrained
from fltheory.numerics.newton import Evaluation, minimise
from fltheory.numerics.validation import Array

_MOST_SEARCHES = 5
_OVERLOOKED = 1e-6  # by how much a ray must exceed 1 to have been overlooked


@frozen(eq=False)
class DomainMinimum:
    """Where the search for the minimum of S stopped.

    Attributes
    ----------
    x, value, residual
        t, S there, and the largest absolute entry of the gap of (11).
    converged
        Whether the residual is below the tolerance and no lambda above 1.
    path
        S at every accepted point.
    rays, amplitudes
        The rays at t and c_k of (14b) for each, (k,); none for a bounded phi.
    """

    x: Array
    value: float
    residual: float
    converged: bool
    path: tuple[float, ...]
    rays: Sequence[Ray] = ()
    amplitudes: Array = field(factory=lambda: np.empty(0))


def minimise_anywhere(
    evaluate: Callable[[Array], Evaluation], start: Array, **settings: float
) -> DomainMinimum:
    """The same where S is finite everywhere: ``settings`` are those of ``minimise``."""
    found = minimise(evaluate, start, **settings)  # type: ignore[arg-type]
    return DomainMinimum(found.x, found.value, found.residual, found.converged, found.path)


def minimise_in_domain(
    evaluate: Callable[[Array], CurvedEvaluation],
    search: RaySearch,
    start: Array,
    known: Sequence[Ray] = (),
    *,
    tolerance: float,
    max_iterations: int = 50,
    radius: float = np.inf,
    report: Callable[[float], None] = lambda residual: None,
    thorough: bool = False,
) -> DomainMinimum:
    """Minimise S of the bulk from ``start``, with the rays of each point as constraints.

    ``known`` are rays near ``start``. If ``thorough``, rays are looked for once more at the solution, from
    many starts; one that was overlooked is taken in and the search goes on. The rest is as in
    ``minimise_constrained``.
    """
    rays = known

    def constraints(field: Array) -> Sequence[Ray]:
        nonlocal rays
        rays = search(field, rays)
        return rays

    for _ in range(_MOST_SEARCHES):
        found = minimise_constrained(
            evaluate,
            constraints,
            start,
            tolerance=tolerance,
            max_iterations=max_iterations,
            radius=radius,
            report=report,
        )
        point, start = found.point, found.point.x
        if not thorough or not found.converged:
            break
        known_strength = max(ray.strength for ray in rays)
        rays = search.thorough(start, rays)
        if rays[0].strength < max(1.0, known_strength) + _OVERLOOKED:
            break
    return DomainMinimum(
        point.x,
        point.here.value,
        point.residual,
        found.converged,
        found.path,
        point.constraints,
        2.0 * search.readout_variance * point.multipliers,
    )
