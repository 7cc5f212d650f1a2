"""Expectation propagation for phi with a slope at infinity: the bulk, and the neurons that condense.

The bulk is the branch of a neuron's law next to the prior. S of the bulk is defined a little beyond
the domain of the exact S, so that the outliers are multipliers of lambda(t) <= 1 (``outliers``).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.domain import DomainMinimum, minimise_in_domain
from fltheory.meanfield.dual import BranchModel, DualPoint, DualProblem, evaluate
from fltheory.meanfield.outliers import Ray, RaySearch
from fltheory.numerics.positive import LowRankPlusBlocks
from fltheory.numerics.validation import Array

_HOT, _COOLING = 4.0, 0.4  # first N T, and the ratio of one to the next
_ON_THE_WAY = 1e-3  # tolerance at the N T that are only passed through
_FIRST_RADIUS = 1.5  # of a step in t
_ACCURACY = 1e-3  # residual for which EP is run at each point
_REGULARISATION = 1e-9

Report = Callable[[float], None]


@frozen(eq=False)
class BulkEvaluation:
    """S of the bulk at one t, as a ``CurvedEvaluation``; infinite where EP finds no bulk."""

    point: DualPoint | None
    shape: tuple[int, int]

    @property
    def value(self) -> float:
        return np.inf if self.point is None else self.point.value

    @property
    def gradient(self) -> Array:
        return np.full(self.shape, np.inf) if self.point is None else -self.point.gap

    def newton_step(self) -> Array:
        return -self.solve(self.gradient[..., None], np.empty((self.gradient.size, 0)))[..., 0]

    def solve(self, right: Array, curvature: Array) -> Array:
        assert self.point is not None
        outputs, weights = self.point.branches.outputs, self.point.probabilities
        deviations = outputs - np.tensordot(weights, outputs, 1)
        hessian = BranchModel(self.point, _REGULARISATION).hessian(weights, deviations)
        factor = np.concatenate([hessian.factor, curvature], axis=1)
        return LowRankPlusBlocks(factor, hessian.blocks).solve(right)


@frozen(eq=False)
class BulkResult:
    """Where the search stopped.

    Attributes
    ----------
    point
        EP's bulk; None if there is none at the start.
    rays, amplitudes
        The rays at its t, and c_k of (14b) for each, (k,).
    residual
        Largest absolute entry of the gap of (11).
    path
        S along the way.
    converged
        Whether all is below the tolerance.
    """

    point: DualPoint | None
    rays: Sequence[Ray]
    amplitudes: Array
    residual: float
    path: tuple[float, ...]
    converged: bool


class BulkSearch:
    """Follows the bulk and its rays from high to low N T."""

    def __init__(self, problem: DualProblem) -> None:
        self.problem = problem
        slopes = problem.nonlinearity.asymptotic_slopes
        self.ray_search = RaySearch(problem.kernel_factor, slopes, problem.readout_variance, problem.seed)
        self._sites = np.zeros((5, 1, len(problem.targets)))
        self._rays: Sequence[Ray] = ()

    def run(self, *, tolerance: float, max_iterations: int, report: Report) -> BulkResult:
        """Solve at the problem's N T, through higher ones."""
        noises = [max(_HOT, self.problem.noise)]
        while noises[-1] * _COOLING > max(self.problem.noise, 1e-3):
            noises.append(noises[-1] * _COOLING)
        noises = [*noises, self.problem.noise]
        field = evolve(self.problem, noise=noises[0]).lazy_field()
        path: tuple[float, ...] = ()
        for noise in noises:
            last = noise == self.problem.noise
            found = self._solve(noise, field, tolerance if last else _ON_THE_WAY, max_iterations, report)
            path, field, self._rays = path + found.path, found.x, found.rays
            if not found.converged:
                break
        point = self._evaluate(evolve(self.problem, noise=noise), field).point
        return BulkResult(point, found.rays, found.amplitudes, found.residual, path, last and found.converged)

    def _solve(
        self, noise: float, field: Array, tolerance: float, max_iterations: int, report: Report
    ) -> DomainMinimum:
        return minimise_in_domain(
            partial(self._evaluate, evolve(self.problem, noise=noise)),
            self.ray_search,
            field,
            self._rays,
            tolerance=tolerance,
            max_iterations=max_iterations,
            radius=_FIRST_RADIUS,
            report=report,
        )

    def _evaluate(self, problem: DualProblem, field: Array) -> BulkEvaluation:
        point = evaluate(problem, field, self._sites, residual=_ACCURACY)
        if point is not None:
            self._sites = point.sites
        return BulkEvaluation(point, field.shape)
