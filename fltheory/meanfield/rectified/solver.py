"""Deep networks of ReLU and kin on orthogonal inputs: what is covered, and the way to its solution."""

import math

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.rectified.chain import ChainPoint, ChainProblem
from fltheory.meanfield.rectified.nodes import Lattice
from fltheory.meanfield.rectified.posterior import RectifiedPosterior
from fltheory.meanfield.rectified.search import OVERLOOKED, ChainSearch, error
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_MOST_LAYERS, _MOST_CLASSES = 3, 3
_RANK_CUT = 1e-6  # relative singular value of the classes' targets that counts as zero
_STARTS = (0.25, 1.0, 4.0, 16.0)  # zbar^2 on a class to start from, in units of K_0
_N_STARTS = 2  # of them that are followed to the end
_COARSE = {1: ((22.0, 0.8), (34.0, 0.8)), 2: ((22.0, 0.8), (34.0, 0.8)), 3: ((22.0, 0.9), (30.0, 0.9))}
# Reach and spacing on the way, by classes; the longer where the tail asks for it
_ENOUGH = 1e-3  # residual on the way
_TAIL = 4.0  # reach of the lattice at the solution, in standard deviations of the readout layer's tail
_SHORTEST = 24.0  # and at least
_FINE = {1: (44.0, 0.5), 2: (44.0, 0.5), 3: (26.0, 0.6)}  # longest reach (weights underflow beyond), spacing
_LONGER, _CLOSER, _WIDER = 1.15, 0.85, 1.2  # reach, spacing and cut of another lattice, relative
_WORST = 0.05  # relative difference between two lattices from which a solution is not resolved


def solve_rectified(model: Model, settings: Settings) -> MeanFieldSolution:
    """Solve (R1)-(R7) for homogeneous phi on orthogonal inputs, two or three hidden layers.

    Raises
    ------
    ValueError
        If the model is not covered.
    ConvergenceError
        If no solution is found to the tolerance.
    """
    groups = _check_covered(model, settings)
    steps = list[float]()

    def report(residual: float) -> None:
        steps.append(residual)
        settings.report(residual)

    reached, found = list[ChainPoint](), list[ChainPoint]()
    for reach, spacing in _COARSE[len(groups.counts)]:
        problem = ChainProblem(
            groups,
            model.nonlinearity.asymptotic_slopes,
            model.weight_variances,
            model.readout_variance,
            model.scaled_temperature,
            Lattice(reach, spacing),
        )
        search = ChainSearch(problem, model.nonlinearity, report)
        reached = _from_several_starts(search, settings)
        found = [point for point in reached if error(point) < _ENOUGH]
        if found:
            break
    if not found:
        nearest = min(reached, key=error, default=None)
        last = None if nearest is None else _solution(model, settings, nearest, search, len(steps))
        raise ConvergenceError(_not_found(model), last=last)
    point = _refined(search, max(found, key=lambda p: p.value), settings)
    solution = _solution(model, settings, point, search, len(steps))
    if solution.residual > settings.tolerance:
        raise ConvergenceError(
            f"the theory stopped after {len(steps)} steps with residual {solution.residual:.2e} (tolerance "
            f"{settings.tolerance:.1e}); try a larger max_iterations or a higher temperature",
            last=solution,
        )
    if max(point.gains) > 1.0 + OVERLOOKED:
        raise ConvergenceError(
            f"the theory stopped at a state that another condensed neuron would improve (certificate "
            f"{max(point.gains):.6f}, expected at most 1): one that is strong on several classes; try a "
            "higher temperature",
            last=solution,
        )
    return _confirmed(solution, search, settings)


# What is covered ---------------------------------------------------------------------------------


def _check_covered(model: Model, settings: Settings) -> GroupedTargets:
    _check_network(model)
    _check_settings(settings)
    return _check_classes(model)


def _check_network(model: Model) -> None:
    if not _is_homogeneous(model.nonlinearity):
        raise ValueError(
            "nonlinearity: expected a bounded function, or one of two straight lines that meet at 0 (ReLU, "
            "LeakyReLU), which is what solve() covers with n_hidden_layers above 1; got "
            f"{model.nonlinearity!r}"
        )
    if model.n_hidden_layers > _MOST_LAYERS:
        raise ValueError(
            f"n_hidden_layers: expected at most {_MOST_LAYERS}, up to which solve() covers "
            f"{model.nonlinearity!r}; got {model.n_hidden_layers}"
        )


def _check_settings(settings: Settings) -> None:
    if settings.method != "auto":
        raise ValueError(
            f"method: expected 'auto', the only one with n_hidden_layers above 1; got {settings.method!r}"
        )
    if settings.finite_width:
        raise ValueError(
            "finite_width: expected False for nonlinear networks with more than one hidden layer, whose "
            "corrections are not known; got True"
        )
    if settings.code_fractions is not None:
        raise ValueError("code_fractions: expected None for a phi without codes; got fractions")


def _check_classes(model: Model) -> GroupedTargets:
    kernel, phi = model.input_kernel, model.nonlinearity
    diagonal = np.diagonal(kernel)
    if np.count_nonzero(kernel - np.diag(diagonal)) or not (diagonal > 0).all():
        raise ValueError(
            f"task: expected orthogonal inputs, for which solve() covers {phi!r} with n_hidden_layers above "
            "1; got inputs that overlap"
        )
    groups = GroupedTargets.of(model.task.targets, diagonal)
    n_classes = len(groups.counts)
    if n_classes > _MOST_CLASSES or groups.counts.min() < 2:
        raise ValueError(
            f"task: expected at most {_MOST_CLASSES} groups of inputs with equal targets and norms, of two "
            f"inputs or more, for which solve() covers {phi!r} with n_hidden_layers above 1; got {n_classes} "
            f"of {_listed(groups.counts)}"
        )
    values = np.linalg.svd(groups.targets, compute_uv=False)
    if len(values) < n_classes or values[-1] < _RANK_CUT * values[0]:
        raise ValueError(
            f"task: expected linearly independent targets of the classes, for which solve() covers {phi!r} "
            "with n_hidden_layers above 1; got targets of which one combines the others"
        )
    return groups


def _listed(counts: Array) -> str:
    return ", ".join(f"{int(n)}" for n in counts[:4]) + (", ..." if len(counts) > 4 else "")


def _is_homogeneous(phi: Nonlinearity) -> bool:
    """Whether phi(c z) = c phi(z) for c > 0."""
    z = np.linspace(-4.0, 4.0, 33)
    minus, plus = phi.asymptotic_slopes
    expected = np.where(z > 0, plus, minus) * z
    return (minus, plus) != (0.0, 0.0) and bool(np.allclose(phi(z), expected, rtol=1e-12, atol=1e-12))


# The way to a solution ---------------------------------------------------------------------------


def _from_several_starts(search: ChainSearch, settings: Settings) -> list[ChainPoint]:
    """Where climbing J ends on the coarse lattice, from condensed neurons of several strengths."""
    reached = list[ChainPoint]()
    for start in _STARTS:
        amplitudes = np.zeros((search.problem.n_hidden_layers, len(search.problem.counts)))
        amplitudes[0] = start * search.problem.counts
        here = search.descend(amplitudes)
        if here is not None:
            reached.append(search.condense(here, _ENOUGH, settings.max_iterations))
        if len(reached) == _N_STARTS:
            break
    return reached


def _refined(search: ChainSearch, point: ChainPoint, settings: Settings) -> ChainPoint:
    """The solution on a lattice that covers the readout layer's tail."""
    longest, spacing = _FINE[len(search.problem.counts)]
    reach = _TAIL / math.sqrt(max(1.0 - max(point.gains[1:]), 1e-4))
    lattice = Lattice(reach=float(np.clip(reach, _SHORTEST, longest)), spacing=spacing)
    fine = evolve(search.problem, lattice=lattice)
    start = ChainPoint(fine, point.state)
    return evolve(search, problem=fine).complete(start, settings.tolerance, settings.max_iterations)


def _solution(
    model: Model, settings: Settings, point: ChainPoint, search: ChainSearch, n_steps: int
) -> MeanFieldSolution:
    neuron = RectifiedPosterior(model, point, settings.seed)
    return MeanFieldSolution(
        model,
        neuron,
        -point.value,
        error(point),
        max(point.gains),
        n_steps,
        "quadrature",
        action_path=tuple(search.path),
    )


def _confirmed(solution: MeanFieldSolution, search: ChainSearch, settings: Settings) -> MeanFieldSolution:
    """With the difference from another lattice, on which the ray of condensed neurons is cut elsewhere."""
    neuron = solution.neuron
    assert isinstance(neuron, RectifiedPosterior)
    there = _on_another_lattice(search, neuron.point, settings.max_iterations)
    if there is None:
        raise ConvergenceError(
            "the theory is not confirmed: on another lattice the search finds no solution from this one; try "
            "more inputs a class",
            last=solution,
        )
    second = RectifiedPosterior(solution.model, there, settings.seed)
    layers = range(1, solution.model.n_hidden_layers + 1)
    kernels = [(neuron.kernel_parts(k).total, second.kernel_parts(k).total) for k in layers]
    agreement = Agreement.between("another lattice", (neuron.field, second.field), kernels)
    solution = evolve(solution, agreement=agreement)
    if max(agreement.dual_field, agreement.kernel) > _WORST:
        raise ConvergenceError(
            "the theory is not resolved: condensed neurons are not apart from the others, so what counts as "
            f"one matters ({agreement}); try more inputs a class",
            last=solution,
        )
    return solution


def _on_another_lattice(search: ChainSearch, point: ChainPoint, max_iterations: int) -> ChainPoint | None:
    """The solution on a longer and finer lattice, reached through lattices between where it is far."""
    first = point.problem.lattice
    for n_parts in (1, 2, 4):
        here = point
        for share in np.arange(1, n_parts + 1) / n_parts:
            lattice = Lattice(
                _LONGER**share * first.reach, _CLOSER**share * first.spacing, _WIDER**share * first.cut
            )
            problem = evolve(point.problem, lattice=lattice)
            near = ChainPoint(problem, here.state)
            here = evolve(search, problem=problem).complete(near, 1e-2 * _ENOUGH, max_iterations)
            if error(here) > _ENOUGH:
                break
        else:
            return here
    return None


def _not_found(model: Model) -> str:
    return (
        f"the theory of {model.nonlinearity!r} with {model.n_hidden_layers} hidden layers finds no solution "
        f"at N T = {model.scaled_temperature:g} from any start; try a higher temperature or more inputs a "
        "class"
    )
