"""One hidden layer on any input kernel, by expectation propagation."""

from collections.abc import Callable

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.bulk import BulkSearch
from fltheory.meanfield.condensed import CondensedPosterior
from fltheory.meanfield.confirm import Confirmation
from fltheory.meanfield.dual import DualPoint, DualProblem
from fltheory.meanfield.gaussian_mixture import MixturePosterior
from fltheory.meanfield.law import NeuronLaw
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.meanfield.particle_solver import solve_particles
from fltheory.meanfield.readout import DualResult, DualSearch, solve_dual
from fltheory.meanfield.sampled_branch import SampledBranch
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor

_COLD = 3e-3  # N T below which a kernel that is not diagonal is approached from above
_COLDEST = 1e-4  # and from where the last step is to 0
_LADDER = 0.5
_MOST_COMPLETIONS = 2  # rounds of looking for branches that EP overlooks
_MOST_SAMPLED = 8  # of them in a round; where more are overlooked particles serve better
_EP_STEPS = 30  # of one attempt, where particles are the alternative


def solve_ep(model: Model, settings: Settings) -> MeanFieldSolution:
    """By EP, for a bounded phi; without a start, a small N T is approached from above.

    Otherwise, unless the engine or fractions are prescribed, exact neurons check the solution, and
    particles answer where it does not hold.
    """
    problem = _dual_problem(model, settings)
    first = _dual_point(settings.start, problem)
    imposed = settings.code_fractions
    if imposed is not None and first is not None:
        activations = first.branches.activations
        imposed.require(imposed.mixing(activations), activations)
    is_auto = settings.method == "auto" and imposed is None  # then particles are faster than a long search

    def solve(problem: DualProblem, first: DualPoint | None, only_start: bool) -> DualResult:
        return solve_dual(
            problem,
            start=first,
            only_start=only_start,
            n_powers=2 if is_auto else 4,
            tolerance=settings.tolerance,
            max_iterations=min(settings.max_iterations, _EP_STEPS) if is_auto else settings.max_iterations,
            report=settings.report,
        )

    if first is None and problem.noise < _COLD:
        return _descend(model, problem, solve, settings.tolerance)
    result = solve(problem, first, imposed is not None)
    if result.converged(settings.tolerance):
        if not is_auto:
            return _mixture(model, result)
        solution, checked = _confirmed(model, result, settings.tolerance)
        if checked.holds():
            return evolve(solution, agreement=_agreement(checked))
    if is_auto:
        return solve_particles(model, settings)
    reached = "no branch converged" if result.point is None else f"residual {result.point.residual:.2e}"
    raise ConvergenceError(
        f"the theory is not resolved at N T = {problem.noise:g}: {reached} "
        f"(tolerance {settings.tolerance:.1e}) after {', '.join(result.tried)}; try a higher temperature, "
        "and start= from its solution",
        last=None if result.point is None else _mixture(model, result),
    )


def _dual_problem(model: Model, settings: Settings) -> DualProblem:
    return DualProblem(
        kernel_factor(model.input_kernel),
        model.task.targets,
        model.scaled_temperature,
        model.readout_variance,
        model.nonlinearity,
        settings.seed,
        fractions=settings.code_fractions,
    )


def _dual_point(start: MeanFieldSolution | None, problem: DualProblem) -> DualPoint | None:
    """Where EP can go on from: its own solution for as many inputs and outputs."""
    if start is None or start.method != "ep":
        return None
    neuron = start.neuron
    assert isinstance(neuron, MixturePosterior)
    same = neuron.point.problem.kernel_factor.shape == problem.kernel_factor.shape
    return neuron.point if same else None


def _confirmed(model: Model, result: DualResult, tolerance: float) -> tuple[MeanFieldSolution, Confirmation]:
    """A solution and what exact neurons say of it, completed by branches of those that EP overlooks."""
    solution = _mixture(model, result)
    for _ in range(_MOST_COMPLETIONS):
        neuron = solution.neuron
        assert isinstance(neuron, MixturePosterior)
        completed = _completed(neuron, tolerance)
        if completed is None:
            break
        solution = _mixture(model, evolve(result, point=completed, path=[*result.path, completed.value]))
    assert isinstance(solution.neuron, MixturePosterior)
    return solution, solution.neuron.confirmation


def _completed(neuron: MixturePosterior, tolerance: float) -> DualPoint | None:
    """The solution with sampled branches of the codes that EP overlooks; None if there are none."""
    point, rng = neuron.point, np.random.default_rng(neuron.point.problem.seed)
    problem = point.problem
    law = NeuronLaw(problem.kernel_factor, point.field, problem.readout_variance, problem.nonlinearity)
    overlooked = neuron.confirmation.overlooked
    if len(overlooked) > _MOST_SAMPLED:
        return None
    found = [SampledBranch.around(latent, region, law, rng) for region, latent in overlooked]
    new = [branch for branch in found if branch is not None]
    if not new:
        return None
    before = [b for b in problem.sampled if not any((b.region.code == n.region.code).all() for n in new)]
    sampled = (*before, *new)
    search = DualSearch(evolve(problem, sampled=sampled))
    completed = search.track(point.field, point.sites, tolerance=tolerance, max_iterations=_EP_STEPS)
    return completed if completed is not None and completed.residual < tolerance else None


def _agreement(checked: Confirmation) -> Agreement:
    return Agreement(
        "exact neurons", checked.field_difference, checked.kernel_difference, checked.missing_probability
    )


def _descend(
    model: Model,
    problem: DualProblem,
    solve: Callable[[DualProblem, DualPoint | None, bool], DualResult],
    tolerance: float,
) -> MeanFieldSolution:
    """Approach a small N T from above; where the way ends, say what is known there."""
    noise, solved = 16 * _COLD, list[DualPoint]()
    result = solve(evolve(problem, noise=noise), None, False)
    while result.converged(tolerance) and result.point is not None:
        solved.append(result.point)
        if noise == problem.noise:
            return _mixture(model, result)
        noise = max(_LADDER * noise, problem.noise)
        if problem.noise == 0.0 and noise < _COLDEST:
            noise = 0.0
        last, result = result, solve(evolve(problem, noise=noise), solved[-1], True)
    raise ConvergenceError(_unresolved(problem, solved), last=_mixture(model, last) if solved else None)


def _unresolved(problem: DualProblem, solved: list[DualPoint]) -> str:
    text = f"the dual field t is not resolved at N T = {problem.noise:g}"
    if len(solved) < 2:
        return text + " nor anywhere above; try a higher temperature or another seed"
    above, last = solved[-2:]
    kernels = [MixturePosterior(point).kernel_parts(1).total for point in (above, last)]
    change = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[1])
    output = np.sqrt(np.mean((above.problem.noise * above.field - last.problem.noise * last.field) ** 2))
    growth = np.linalg.norm(last.field) / np.linalg.norm(above.field)
    return text + (
        f": the last solution is at N T = {last.problem.noise:g} (attached as .last), and |t| still grew by "
        f"a factor {growth:.2f} from N T = {above.problem.noise:g}. Resolved are the outputs on the training "
        f"inputs, to +-{output:.2g} rms, and the kernel, to +-{change:.1%}"
    )


def _mixture(model: Model, result: DualResult) -> MeanFieldSolution:
    point = result.point
    assert point is not None
    noise = point.problem.noise
    model = evolve(model, temperature=noise / model.width) if noise != model.scaled_temperature else model
    return MeanFieldSolution(
        model,
        MixturePosterior(point),
        -point.value,
        point.residual,
        None,
        len(result.path),
        "ep",
        tuple(result.path),
    )


def solve_bulk(model: Model, settings: Settings) -> MeanFieldSolution:
    """By EP for the bulk, with the neurons that condense."""
    problem = _dual_problem(model, settings)
    search = BulkSearch(problem)
    result = search.run(
        tolerance=settings.tolerance, max_iterations=settings.max_iterations, report=settings.report
    )
    if result.point is None:
        raise ConvergenceError("expectation propagation finds no bulk; try method='particles'", last=None)
    condensed = CondensedNeurons.along(result.rays, result.amplitudes, search.ray_search.slopes)
    bulk = evolve(result.point.problem, targets=problem.targets - condensed.outputs)
    mixture = MixturePosterior(evolve(result.point, problem=bulk))
    neuron = CondensedPosterior(model, mixture, condensed, problem.kernel_factor, settings.seed)
    certificate = max(ray.strength for ray in result.rays)
    solution = MeanFieldSolution(
        model,
        neuron,
        -result.point.value,
        result.residual,
        certificate,
        len(result.path),
        "ep",
        result.path,
    )
    if not result.converged:
        raise ConvergenceError(
            f"expectation propagation stopped at N T = {result.point.problem.noise:g} with residual "
            f"{result.residual:.2e}: it describes the bulk by one Gaussian, which fails where many neurons "
            "are on their way to condense; try method='particles'",
            last=solution,
        )
    return solution
