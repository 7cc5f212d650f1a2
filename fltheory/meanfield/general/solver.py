"""Two hidden layers or more of a bounded nonlinearity on any input kernel: which engine answers."""

from fltheory.errors import ConvergenceError
from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.general.lattice_solver import solve_lattice
from fltheory.meanfield.general.particle_solver import solve_deep_particles
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model


def solve_general(model: Model, settings: Settings) -> MeanFieldSolution:
    """Solve the mean-field equations of hidden layers of bounded phi on any kernel.

    Two layers by a lattice and EP, and by particles where that fails; more by particles.

    Raises
    ------
    ValueError
        If EP is prescribed for more layers, or T = 0 and Y cannot be fitted.
    ConvergenceError
        If no solution is found to the tolerance.
    """
    if model.n_hidden_layers > 2 and settings.method == "ep":
        raise ValueError(
            "method: expected 'auto' or 'particles' for more than two hidden layers on inputs that are not "
            f"orthogonal, got 'ep' for {model.n_hidden_layers}"
        )
    if model.scaled_temperature == 0.0:
        prior = model.nonlinearity.gaussian_kernel(model.input_kernel)
        check_range(prior, model.task.targets, model.input_kernel)
    if settings.method == "particles" or model.n_hidden_layers > 2:
        return solve_deep_particles(model, settings)
    try:
        return solve_lattice(model, settings)
    except ConvergenceError:
        if settings.method == "ep":
            raise
        return solve_deep_particles(model, settings)
