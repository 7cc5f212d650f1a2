"""Which theory answers for a model, and what is said when it cannot."""

import math
from collections.abc import Callable

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.bulk import BulkSearch
from fltheory.meanfield.condensed import CondensedPosterior
from fltheory.meanfield.confirm import Confirmation
from fltheory.meanfield.deep.solver import solve_deep
from fltheory.meanfield.domain import DomainMinimum
from fltheory.meanfield.dual import DualPoint, DualProblem
from fltheory.meanfield.factorised import FactorisedPosterior
from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.finite_width import corrected, uncorrected
from fltheory.meanfield.gaussian_mixture import MixturePosterior
from fltheory.meanfield.general.solver import solve_general
from fltheory.meanfield.lazy import solve_lazy
from fltheory.meanfield.linear import solve_linear
from fltheory.meanfield.neuron import NeuronPosterior
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.meanfield.particles import Particles, Replicates, solve_twice
from fltheory.meanfield.quadrature import FINE, GroupedSearch, GroupedTargets
from fltheory.meanfield.readout import DualResult, solve_dual
from fltheory.meanfield.rectified.solver import solve_rectified
from fltheory.meanfield.sampled import SampledPosterior
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.meanfield.untrained import UntrainedPosterior
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor
from fltheory.numerics.validation import Array

_LARGEST_GROUPED = 1200  # entries of t up to which the exact problem is solved with dense matrices
_MOST_OUTPUTS = 6  # up to which quasi-random points cover the readout
_COLD = 3e-3  # N T below which a kernel that is not diagonal is approached from above
_COLDEST = 1e-4  # and from where the last step is to 0
_LADDER = 0.5
_EP_STEPS = 30  # of one attempt, where particles are the alternative
_WORST_QUADRATURE = 1e-3  # relative error of Gaussian averages of phi
_WORST_INTEGRAL, _MORE_POINTS = 1e-3, 3  # error of quasi-random points that is let pass; how often to retry
_UNRESOLVED = 0.05  # relative standard error of t from which particles do not know it
_N_PARTICLES = 1000  # of each of two runs, at first


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
    solution = _solve(model, settings)
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
        exact = _is_diagonal(model) and settings.method != "ep" and settings.code_fractions is None
        return solve_deep(model, settings) if exact else solve_general(model, settings)
    if model.scaled_temperature == 0.0:
        kernel = model.nonlinearity.gaussian_kernel(model.input_kernel)
        check_range(kernel, model.task.targets, model.input_kernel)
    if settings.code_fractions is not None:
        settings = evolve(settings, start=_free(model, settings))
    if settings.method == "auto" and _is_grouped(model):
        try:
            return _solve_grouped(model, settings)
        except ConvergenceError:
            if model.nonlinearity.is_bounded:
                raise  # else neurons may be far out along the rays, where particles follow them
    if settings.method == "particles":
        return _solve_particles(model, settings)
    if model.nonlinearity.is_bounded:
        return _solve_ep(model, settings)
    return _solve_bulk(model, settings) if settings.method == "ep" else _solve_particles(model, settings)


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


def _solve_grouped(model: Model, settings: Settings) -> MeanFieldSolution:
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


def _solve_ep(model: Model, settings: Settings) -> MeanFieldSolution:
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
        solution = _mixture(model, result)
        assert isinstance(solution.neuron, MixturePosterior)
        if not is_auto:
            return solution
        checked = solution.neuron.confirmation
        if checked.holds():
            return evolve(solution, agreement=_agreement(checked))
    if is_auto:
        return _solve_particles(model, settings)
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


def _agreement(checked: Confirmation) -> Agreement:
    return Agreement(
        "exact neurons", checked.field_difference, checked.kernel_difference, checked.missing_probability
    )


def _solve_bulk(model: Model, settings: Settings) -> MeanFieldSolution:
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


def _solve_particles(model: Model, settings: Settings) -> MeanFieldSolution:
    """By weighted particles: slower, of limited accuracy, and complete."""
    factor, targets, noise = kernel_factor(model.input_kernel), model.task.targets, model.scaled_temperature

    def particles(seed: np.random.SeedSequence) -> Particles:
        return Particles(
            factor, targets, model.readout_variance, model.nonlinearity, n_particles=_N_PARTICLES, seed=seed
        )

    first, second = np.random.SeedSequence(settings.seed).spawn(2)
    found = solve_twice(
        (particles(first), particles(second)),
        noise,
        tolerance=settings.tolerance,
        report=settings.report,
        max_iterations=settings.max_iterations,
    )
    solution = _sampled(model, settings, factor, found)
    if not found.converged:
        raise ConvergenceError(
            f"the theory is not resolved at N T = {noise:g}: particles did not settle on the way there, or "
            f"on what both runs found (residual {solution.residual:.2e}, tolerance "
            f"{settings.tolerance:.1e}); try a higher temperature or another seed",
            last=solution,
        )
    if 0.5 * found.field_difference > _UNRESOLVED:
        raise ConvergenceError(
            f"the dual field t is not resolved at N T = {noise:g}: two runs of particles differ by "
            f"{found.field_difference:.1%}. Resolved are the outputs on the training inputs, to "
            f"+-{found.output_difference:.2g} rms, and the kernel, to +-{found.kernel_difference:.1%}; try a "
            "higher temperature",
            last=solution,
        )
    return solution


def _sampled(model: Model, settings: Settings, factor: Array, found: Replicates) -> MeanFieldSolution:
    """The solution on the particles of two runs."""
    targets, noise, sample = model.task.targets, model.scaled_temperature, found.sample
    field, condensed = sample.field, sample.condensed
    neuron: NeuronPosterior = SampledPosterior(
        sample.latent,
        sample.weights,
        field,
        factor,
        targets if condensed is None else targets - condensed.outputs,
        noise,
        model.readout_variance,
        model.nonlinearity,
        settings.seed,
    )
    if condensed is not None:
        neuron = CondensedPosterior(model, neuron, condensed, factor, settings.seed)
    action = 0.5 * noise * float((field**2).sum()) - float((field * targets).sum()) + sample.log_partition
    return MeanFieldSolution(
        model,
        neuron,
        -action,
        sample.residual,
        sample.largest_strength,
        found.n_rounds,
        "particles",
        agreement=Agreement("two runs of particles", found.field_difference, found.kernel_difference),
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


def _dual_point(start: MeanFieldSolution | None, problem: DualProblem) -> DualPoint | None:
    """Where EP can go on from: its own solution for as many inputs and outputs."""
    if start is None or start.method != "ep":
        return None
    neuron = start.neuron
    assert isinstance(neuron, MixturePosterior)
    same = neuron.point.problem.kernel_factor.shape == problem.kernel_factor.shape
    return neuron.point if same else None
