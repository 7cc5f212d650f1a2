"""Deep networks of a bounded nonlinearity on a diagonal input kernel."""

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.deep.blocks import ClassSymmetry
from fltheory.meanfield.deep.equations import DeepEquations, DeepState
from fltheory.meanfield.deep.posterior import DeepPosterior
from fltheory.meanfield.deep.readout import Readout
from fltheory.meanfield.deep.search import DeepSearch, Points
from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.roots import Root

_MOST_LATENTS = 8  # of a layer, up to which quasi-random points cover them
_COARSE, _FINE = 1024, 8192  # points on the way and at the solution
_FIELD_TOLERANCE = 1e-3  # of the readout's own problem, relative to that of all equations
_DIFFERENT = 0.1  # relative difference of kernels on two sets of points that are two solutions


def are_few(model: Model) -> bool:
    """Whether classes and outputs are few enough for quasi-random points in the latents of a neuron.

    These are two a class, or one a class and one an output. Inputs are orthogonal to one another.
    """
    groups = GroupedTargets.of(model.task.targets, np.diagonal(model.input_kernel))
    n_classes, n_outputs = groups.targets.shape
    return bool(n_classes + max(n_outputs, n_classes) <= _MOST_LATENTS)


def solve_deep(model: Model, settings: Settings) -> MeanFieldSolution:
    """Solve the mean-field equations of a deep network of bounded phi on orthogonal inputs.

    Raises
    ------
    ValueError
        If T = 0 and the targets cannot be fitted.
    ConvergenceError
        If no solution is found to the tolerance.
    """
    if settings.code_fractions is not None:
        free = solve_deep(model, evolve(settings, code_fractions=None))
        settings = evolve(settings, start=free)
    equations = _equations(model, settings)
    coarse, fine = Points(_COARSE, settings.seed), Points(_FINE, settings.seed)
    search = DeepSearch(equations, coarse, settings.max_iterations, settings.report)
    root = search.run(settings.start)
    if root is None:
        what = "first guess" if settings.code_fractions is None else "way to these fractions of codes"
        raise ConvergenceError(f"the theory found no {what}; try a higher temperature", last=settings.start)
    if root.converged:
        root = search.polished(root, fine, settings.tolerance)
    solution = _solution(model, settings, root.here, search)
    if not root.converged:
        raise ConvergenceError(
            f"the theory stopped with residual {root.size:.2e} (tolerance {settings.tolerance:.1e}); try "
            "start= at a solution for a higher temperature, or another seed",
            last=solution,
        )
    return evolve(solution, agreement=_agreement(search, root, settings, solution))


def _equations(model: Model, settings: Settings) -> DeepEquations:
    groups = GroupedTargets.of(model.task.targets, np.diagonal(model.input_kernel))
    if model.scaled_temperature == 0.0:
        prior = model.nonlinearity.gaussian_kernel(model.input_kernel)
        check_range(prior, model.task.targets, model.input_kernel)
    fractions = settings.code_fractions
    if fractions is not None:
        fractions = fractions.of_groups(groups.member)
    readout = Readout(
        groups,
        ClassSymmetry.of(groups) if fractions is None else ClassSymmetry.none(groups),
        model.readout_variance,
        model.nonlinearity,
        model.scaled_temperature,
        fractions,
    )
    return DeepEquations(
        readout, model.weight_variances, (), _FIELD_TOLERANCE * min(settings.tolerance, 1e-4)
    )


def _solution(model: Model, settings: Settings, state: DeepState, search: DeepSearch) -> MeanFieldSolution:
    noise = state.equations.readout.noise
    if noise != model.scaled_temperature:
        model = evolve(model, temperature=noise / model.width)
    return MeanFieldSolution(
        model,
        DeepPosterior(state, settings.seed),
        -state.action,
        max(float(np.abs(state.residual).max()), state.solved.residual),
        None,
        len(search.path),
        "quadrature",
        action_path=tuple(search.path),
        agreement=None,
    )


def _agreement(
    search: DeepSearch, root: Root[DeepState], settings: Settings, solution: MeanFieldSolution
) -> Agreement:
    """How far the solution on other points is."""
    other = search.polished(root, Points(_FINE, settings.seed).another(1), max(settings.tolerance, 1e-4))
    kernels = [
        (one.blocks, two.blocks) for one, two in zip(root.here.kernels, other.here.kernels, strict=True)
    ]
    fields = (root.here.solved.field, other.here.solved.field)
    agreement = Agreement.between("other quasi-random points", fields, kernels)
    if not other.converged or agreement.kernel > _DIFFERENT:
        raise ConvergenceError(
            "the theory found another solution on other quasi-random points, or none; try another seed",
            last=solution,
        )
    return agreement
