"""The readout layer on the learned kernel, and what it asks of the layer below: docs/theory.md (7)."""

from functools import cached_property

import numpy as np
from attrs import evolve, frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.dual import DualPoint, DualProblem
from fltheory.meanfield.gaussian_mixture import MixturePosterior
from fltheory.meanfield.general.layer import LayersAbove
from fltheory.meanfield.readout import DualSearch, solve_dual
from fltheory.numerics.validation import Array

_TOLERANCE = 1e-6
_NEGLIGIBLE = 1e-9  # probability of a branch that asks for nothing
_USABLE = 1e-3  # residual above which a readout is not believed


@frozen(eq=False)
class EPReadout(LayersAbove):
    """The readout layer at one kernel.

    Attributes
    ----------
    point
        The solution of its dual problem on C' = sigma_2^2 <phi phi^T>_1.
    problem
        What is solved at each kernel: the point may be by another power of EP.
    """

    point: DualPoint
    problem: "ReadoutProblem"

    @property
    def weight_variance(self) -> float:
        return self.problem.weight_variance

    @property
    def field(self) -> Array:
        return self.point.field

    @property
    def action(self) -> float:
        return self.point.value

    @property
    def residual(self) -> float:
        return self.point.residual

    @cached_property
    def posterior(self) -> MixturePosterior:
        """EP's branches at this kernel."""
        return MixturePosterior(self.point)

    @cached_property
    def message(self) -> Array:
        """From the sites, (7e): without an inverse of K."""
        point, problem = self.point, self.point.problem
        factor = problem.kernel_factor
        kernel, rank = factor @ factor.T, factor.shape[1]
        field = np.sqrt(problem.readout_variance) * point.field
        total = np.zeros_like(kernel)
        for b in np.flatnonzero(point.probabilities > _NEGLIGIBLE):
            zz, zh, hh, z, _ = point.sites[:, b]
            latent = point.branches.latent_mean[b]
            pull = z - zz * (factor @ latent[:rank]) - zh * (field @ latent[rank:])
            cross = zh[:, None] * field
            inner = np.eye(field.shape[1]) + (field * hh[:, None]).T @ field
            precision = np.diag(zz) - cross @ np.linalg.solve(inner, cross.T)
            shrinkage = np.linalg.solve(np.eye(len(kernel)) + precision @ kernel, precision)
            total += point.probabilities[b] * (np.outer(pull, pull) - 0.5 * (shrinkage + shrinkage.T))
        return np.asarray(self.weight_variance * total)

    def again(self, kernel: Array) -> "EPReadout | None":
        """On with these branches alone."""
        problem, point = self.problem, self.point
        search = DualSearch(problem.at(kernel))
        found = search.track(point.field, point.sites, tolerance=problem.tolerance, max_iterations=12)
        return None if found is None or found.residual > _USABLE else evolve(self, point=found)


@frozen(eq=False)
class ReadoutProblem:
    """The readout layer at any kernel of the layer below.

    Attributes
    ----------
    template
        The dual problem, whose kernel is replaced.
    weight_variance
        sigma_2^2.
    tolerance
        On its residual.
    """

    template: DualProblem
    weight_variance: float
    tolerance: float = _TOLERANCE

    def at(self, kernel: Array) -> DualProblem:
        """On the kernel <phi phi^T>_1 of the first layer, (P, P)."""
        values, vectors = np.linalg.eigh(self.weight_variance * kernel)
        factor = vectors * np.sqrt(np.maximum(values, 0.0))  # of full rank: sites can be carried over
        return evolve(self.template, kernel_factor=factor)

    def first(self, kernel: Array, start: DualPoint | None, max_iterations: int) -> EPReadout:
        """From scratch, or from another solution, with every code tried."""
        result = solve_dual(
            self.at(kernel),
            start=start,
            only_start=start is not None,
            n_powers=2,
            tolerance=self.tolerance,
            max_iterations=max_iterations,
        )
        if result.point is None or result.point.residual > _USABLE:
            raise ConvergenceError(
                "the readout layer is not resolved on the kernel of the first layer: expectation propagation "
                "fails near the N T at which codes form; try a lower or a higher temperature, or start= from "
                "a solution there"
            )
        return EPReadout(result.point, self)
