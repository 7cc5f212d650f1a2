"""One hidden layer on a diagonal input kernel, by exact integrals."""

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.condensed import CondensedPosterior
from fltheory.meanfield.domain import DomainMinimum
from fltheory.meanfield.factorised import FactorisedPosterior
from fltheory.meanfield.neuron import NeuronPosterior
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.search import FINE, GroupedSearch
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor

_WORST_INTEGRAL, _MORE_POINTS = 1e-3, 3  # error of quasi-random points that is let pass; how often to retry


def solve_grouped(model: Model, settings: Settings) -> MeanFieldSolution:
    """By exact integrals, with other and more points where those taken miss a part of the rays."""
    best = _solve_on_points(model, settings, FINE)
    for attempt in range(_MORE_POINTS if best.certificate is not None else 0):
        if _integration_error(best) < _WORST_INTEGRAL:
            break
        other = evolve(settings, seed=settings.seed + attempt + 1)
        found = _solve_on_points(model, other, FINE << (2 * attempt))
        best = min(best, found, key=_integration_error)
    return best


def _integration_error(solution: MeanFieldSolution) -> float:
    """Largest entry of Y - N T t - sigma_a^2 K_L t, relative to Y: zero but for the error of the points."""
    model, field = solution.model, solution.dual_field
    gap = model.task.targets - model.scaled_temperature * field
    gap = gap - model.readout_variance * solution.kernel(1) @ field
    return float(np.abs(gap).max() / max(np.abs(model.task.targets).max(), 1e-300))


def _solve_on_points(model: Model, settings: Settings, n_points: int) -> MeanFieldSolution:
    groups = GroupedTargets.of(model.task.targets, np.diagonal(model.input_kernel))
    search = GroupedSearch(
        groups,
        model.nonlinearity,
        noise=model.scaled_temperature,
        readout_variance=model.readout_variance,
        seed=settings.seed,
        n_fine=n_points,
        fractions=settings.code_fractions,
    )
    field = np.zeros_like(groups.targets)
    if settings.start is not None:
        for group in range(len(field)):
            field[group] = settings.start.dual_field[groups.member == group].mean(0)
    here, step, converged = search.run(
        field, tolerance=settings.tolerance, max_iterations=settings.max_iterations, report=settings.report
    )
    neuron: NeuronPosterior = FactorisedPosterior(here, step.x, settings.seed)
    certificate, residual = None, float(np.abs(here.gradient).max())
    if step.rays:
        certificate, residual = step.rays[0].strength, step.residual
        condensed, factor = _condensed(model, step, groups), kernel_factor(model.input_kernel)
        neuron = CondensedPosterior(model, neuron, condensed, factor, settings.seed)
    solution = MeanFieldSolution(
        model,
        neuron,
        -here.value,
        residual,
        certificate,
        len(search.path),
        "quadrature",
        tuple(search.path),
    )
    if not converged:
        raise ConvergenceError(
            f"the theory stopped after {len(search.path)} steps with residual {residual:.2e} "
            f"(tolerance {settings.tolerance:.1e}); try a larger max_iterations, another seed, or start= at "
            "a solution for a higher temperature",
            last=solution,
        )
    return solution


def _condensed(model: Model, step: DomainMinimum, groups: GroupedTargets) -> CondensedNeurons:
    """The outliers, from rays over groups, in which n inputs count as one that is sqrt(n) as strong."""
    shares = np.eye(len(groups.counts))[groups.member] / np.sqrt(groups.counts)
    slopes = model.nonlinearity.asymptotic_slopes
    return CondensedNeurons.along(step.rays, step.amplitudes, slopes, shares)
