"""Which theory answers for a model, and what is said when it cannot."""

import math

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.deep.solver import are_few, solve_deep
from fltheory.meanfield.ep_solver import solve_bulk, solve_ep
from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.finite_width import corrected, uncorrected
from fltheory.meanfield.general.solver import solve_general
from fltheory.meanfield.lazy import solve_lazy
from fltheory.meanfield.linear import solve_linear
from fltheory.meanfield.particle_solver import solve_particles
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.solver import solve_grouped
from fltheory.meanfield.rectified.solver import solve_rectified
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.meanfield.untrained import UntrainedPosterior
from fltheory.model import Model

_LARGEST_GROUPED = 1200  # entries of t up to which the exact problem is solved with dense matrices
_MOST_OUTPUTS = 6  # up to which quasi-random points cover the readout
_WORST_QUADRATURE = 1e-3  # relative error of Gaussian averages of phi


def solve_model(model: Model, settings: Settings) -> MeanFieldSolution:
    """Solve the mean-field equations of a model by the engine that fits it.

    Raises
    ------
    ValueError
        If no engine covers the model, or T = 0 and the targets cannot be fitted.
    ConvergenceError
        If the engine stops above the tolerance.
    """
    if settings.start is not None:
        settings = evolve(settings, start=uncorrected(settings.start))
    solution = evolve(_solve(model, settings), has_imposed_codes=settings.code_fractions is not None)
    is_linear = model.nonlinearity.is_linear and not model.is_lazy  # solved at its width
    return corrected(solution, settings.seed) if settings.finite_width and not is_linear else solution


def _check_resolved(model: Model) -> None:
    """Refuse a phi that varies faster than the quadrature at the scale of the preactivations."""
    scale = math.sqrt(float(np.diagonal(model.input_kernel).max())) or 1.0
    error = model.nonlinearity.quadrature_error(scale)
    if not error < _WORST_QUADRATURE:
        raise ValueError(
            f"nonlinearity: expected a function whose averages the quadrature resolves; got "
            f"{model.nonlinearity!r}, whose averages at standard deviation {scale:.3g} are off by {error:.1g}"
        )


def _solve(model: Model, settings: Settings) -> MeanFieldSolution:
    _check_resolved(model)
    if model.is_lazy:
        return solve_lazy(model)
    if model.nonlinearity.is_linear:
        linear, steps = solve_linear(
            model,
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
            report=settings.report,
            finite_width=settings.finite_width,
        )
        return MeanFieldSolution(
            model, linear, -linear.action, linear.residual, linear.certificate, steps, "closed form"
        )
    certificate = None if model.nonlinearity.is_bounded else 0.0
    if math.isinf(model.scaled_temperature):
        return MeanFieldSolution(model, UntrainedPosterior(model), 0.0, 0.0, certificate, 0, "closed form")
    if model.n_hidden_layers > 1 and not model.nonlinearity.is_bounded:
        return solve_rectified(model, settings)
    if model.n_hidden_layers > 1:
        exact = settings.method == "auto" and _is_diagonal(model) and are_few(model)
        return solve_deep(model, settings) if exact else solve_general(model, settings)
    if model.scaled_temperature == 0.0:
        kernel = model.nonlinearity.gaussian_kernel(model.input_kernel)
        check_range(kernel, model.task.targets, model.input_kernel)
    if settings.code_fractions is not None:
        settings = evolve(settings, start=_free(model, settings))
    if settings.method == "auto" and _is_grouped(model):
        try:
            return solve_grouped(model, settings)
        except ConvergenceError:
            if model.nonlinearity.is_bounded:
                raise  # else neurons may be far out along the rays, where particles follow them
    if settings.method == "particles":
        return solve_particles(model, settings)
    if model.nonlinearity.is_bounded:
        return solve_ep(model, settings)
    return solve_bulk(model, settings) if settings.method == "ep" else solve_particles(model, settings)


def _free(model: Model, settings: Settings) -> MeanFieldSolution:
    """The solution whose fractions are found, from where imposed ones are approached."""
    method = "auto" if settings.method == "auto" and _is_grouped(model) else "ep"
    return _solve(model, evolve(settings, method=method, code_fractions=None))


def _is_diagonal(model: Model) -> bool:
    """Whether inputs are orthogonal to one another, and none vanishes."""
    kernel = model.input_kernel
    off_diagonal = np.count_nonzero(kernel - np.diag(np.diagonal(kernel)))
    return not off_diagonal and bool(np.diagonal(kernel).all())


def _is_grouped(model: Model) -> bool:
    """Whether K_0 is diagonal and the exact problem small enough."""
    if not _is_diagonal(model):
        return False
    kernel = model.input_kernel
    groups = GroupedTargets.of(model.task.targets, np.diagonal(kernel))
    return groups.targets.size <= _LARGEST_GROUPED and groups.targets.shape[1] <= _MOST_OUTPUTS
