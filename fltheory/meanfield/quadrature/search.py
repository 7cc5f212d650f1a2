"""The minimum of S over t, on points that are drawn anew while they fit t badly.

Where phi has a slope at infinity, the domain of S is the constraint that no neuron condenses
(``outliers``).
"""

import math
from collections.abc import Callable

import numpy as np
from attrs import evolve

from fltheory.meanfield.domain import DomainMinimum, minimise_anywhere, minimise_in_domain
from fltheory.meanfield.fractions import ImposedFractions
from fltheory.meanfield.outliers import RaySearch
from fltheory.meanfield.quadrature.dual import GroupedDual, GroupedEvaluation, RootCounts
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.proposal import find_proposal
from fltheory.meanfield.quadrature.sites import IndependentSites
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_COARSE, FINE = 1024, 8192  # points on the way, and at the solution
_COARSE_STEPS = 12  # after which the fine ones are taken in any case
_LEAST_ESS = 0.35  # relative effective sample size below which the points are drawn anew
_TRUSTED_ESS = 0.05  # and below which S is not believed
_JUMP = 0.05  # of S, more than the sampling error, that shows a missed branch
_FIRST_RADIUS, _LEAST_RADIUS = 1.5, 1e-3  # of a step in t on the same points

Report = Callable[[float], None]


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
        self.groups, self.n_fine = groups, n_fine
        self.fractions = None if fractions is None else fractions.of_groups(groups.member)
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
