"""Two hidden layers of a bounded nonlinearity on any input kernel: which engine answers."""

from fltheory.errors import ConvergenceError
from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.general.lattice_solver import solve_lattice
from fltheory.meanfield.general.particle_solver import solve_pair_of_particles
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model


def solve_general(model: Model, settings: Settings) -> MeanFieldSolution:
    """Solve the mean-field equations of two hidden layers of bounded phi on any kernel.

    By a lattice and EP, and by particles where that fails, unless the engine or fractions are prescribed.

    Raises
    ------
    ValueError
        If the depth is not covered, or T = 0 and Y cannot be fitted.
    ConvergenceError
        If no solution is found to the tolerance.
    """
    if model.n_hidden_layers != 2:
        raise ValueError(
            "n_hidden_layers: expected 1 or 2, up to which solve() covers bounded nonlinearities on inputs "
            "that are not orthogonal, and method='ep' or 'particles' (sample() covers any depth); got "
            f"{model.n_hidden_layers}"
        )
    if model.scaled_temperature == 0.0:
        prior = model.nonlinearity.gaussian_kernel(model.input_kernel)
        check_range(prior, model.task.targets, model.input_kernel)
    if settings.method == "particles":
        return solve_pair_of_particles(model, settings)
    try:
        return solve_lattice(model, settings)
    except ConvergenceError:
        if settings.method == "ep" or settings.code_fractions is not None:
            raise
        return solve_pair_of_particles(model, settings)
