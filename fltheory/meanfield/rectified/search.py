"""The solution of the equations of a chain: a path down in N T, then how far neurons condense.

With the condensed neurons held as they are, the solution is followed from a high N T, where it is nearly
linear response, by Newton's method. Then their amplitudes climb J. J is not concave: several amplitudes
to start from may end in different maxima, of which the highest counts.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import evolve, field, frozen

from fltheory.meanfield.deep.blocks import ClassSymmetry
from fltheory.meanfield.rectified.chain import ChainPoint, ChainProblem, ChainState
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.condensation import ClassRays, largest_gain
from fltheory.meanfield.rectified.linearised import Linearised
from fltheory.meanfield.rectified.sites import OutsideDomainError
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Booleans

_WORST_EDGE = 1e-3  # probability at the end of a lattice from which a point is not believed
_WEAK = 0.2  # lambda_L at the high N T where the path starts, in linear response
_STEEPEST, _SHORTEST = math.log(2.0), 0.05  # steps in log N T
_COLDEST = 1e-3  # N T, in units of where the path starts, from which the last step is to 0
_ROUGH = 1e-4  # residual on the way
_LONGEST, _LONGEST_ABOVE = 0.5, 3.0  # step in log amplitude in the first layer, and above
_FAINT = 1e-3  # share of a kernel below which a class has no condensed neuron
_NEW = 1e-2  # and with which one starts where another would gain
OVERLOOKED = 1e-4  # lambda - 1 from which it would
_OVER = 1e-3  # lambda_1 - 1 at fixed amplitudes from which they are too small for the path to go on
_SLOW = 0.3  # contraction of the residual above which the derivatives are taken anew
_INNER_STEPS = 12

Report = Callable[[float], None]


@frozen(eq=False)
class ChainSearch:
    """Finds solutions of a ``ChainProblem``.

    Attributes
    ----------
    problem
        The equations, at the N T that is wanted.
    nonlinearity
        phi.
    report
        Called with the residual after each step.
    path
        J at each step of the amplitudes.
    """

    problem: ChainProblem
    nonlinearity: Nonlinearity
    report: Report
    path: list[float] = field(factory=list)

    @cached_property
    def symmetry(self) -> ClassSymmetry:
        """The permutations of classes that the task does not notice."""
        return ClassSymmetry.of(self.problem.groups)

    # The start ---------------------------------------------------------------------------------------

    def untrained_kernels(self, amplitudes: Array) -> list[ClassMatrix]:
        """K_0 ... K_{L-1} and <phi phi^T>_L of a network that has learned no more than condensed neurons.

        These tell the classes apart: without them all kernels would be singular.
        """
        problem, n_classes = self.problem, len(self.problem.counts)
        none = ClassMatrix(np.eye(n_classes), np.zeros(n_classes))
        kernels = [ClassMatrix(np.zeros((n_classes,) * 2), problem.groups.variances)]
        rays = ClassRays.of(none, kernels[0], problem.counts, problem.slopes)
        twice = np.repeat(np.arange(n_classes), 2)  # two inputs of each class tell all
        for variance in (*problem.weight_variances[1:], 1.0):
            full = np.asarray(self.nonlinearity.gaussian_kernel(kernels[-1].expand(twice)))
            blocks = full[::2, 1::2]
            kernel = ClassMatrix(blocks, np.diagonal(full)[::2] - np.diagonal(blocks))
            kernel = kernel + rays.kernel(amplitudes[0]) if len(kernels) == 1 else kernel
            kernels.append(kernel * variance)
        return kernels

    def first_guess(self, noise: float | None, amplitudes: Array) -> tuple[float, ChainState]:
        """A high N T (if None is asked for), and nearly the solution there: linear response."""
        problem, counts = self.problem, self.problem.counts
        kernels, targets = self.untrained_kernels(amplitudes), problem.groups.targets
        if noise is None:
            outputs = ClassMatrix(problem.readout_variance * targets @ targets.T, np.zeros(len(counts)))
            noise = math.sqrt(largest_gain(outputs, kernels[-2], counts, problem.slopes) / _WEAK)
        response = problem.readout_variance * kernels[-1].on_sums(counts) / counts[:, None]
        field = np.asarray(np.linalg.solve(noise * np.eye(len(counts)) + response, targets))
        conjugates = [ClassMatrix(np.zeros((len(counts),) * 2), np.zeros(len(counts)))] * len(kernels[2:])
        for number in range(len(conjugates), 0, -1):  # each Kt from the layer above
            point = ChainPoint(problem, ChainState(field, tuple(conjugates), amplitudes))
            above = point.layer_on(number + 1, kernels[number])
            conjugates[number - 1] = above.message * problem.weight_variances[number]
        return noise, ChainState(field, tuple(conjugates), amplitudes)

    # At fixed amplitudes -----------------------------------------------------------------------------

    def point(self, state: ChainState) -> ChainPoint | None:
        """The equations at a state, or None where a layer has no law that its lattice covers."""
        point = ChainPoint(self.problem, state)
        try:
            return point if np.isfinite(point.residual).all() and point.edge < _WORST_EDGE else None
        except (OutsideDomainError, np.linalg.LinAlgError):
            return None

    def settle(
        self, state: ChainState, tolerance: float, near: Linearised | None = None
    ) -> Linearised | None:
        """Solve for t and Kt at fixed amplitudes, from nearby; ``near`` lends its derivatives."""
        here = self.point(state)
        if here is None:
            return None
        lines, is_fresh = (self._fixed(here), True) if near is None else (evolve(near, point=here), False)
        for _ in range(_INNER_STEPS):
            if lines is None or size(lines.point) < tolerance:
                return lines
            here = lines.point
            there = self._along(here, lines.inner_step)
            if there is not None:
                self.report(size(there))
                is_fresh = size(there) > _SLOW * size(here)
                lines = self._fixed(there) if is_fresh else evolve(lines, point=there)
            elif is_fresh:
                return None
            else:
                lines, is_fresh = self._fixed(here), True
        return None

    def _fixed(self, here: ChainPoint) -> Linearised | None:
        return self.linearised(here, np.zeros(here.state.amplitudes.shape, dtype=bool))

    def linearised(self, here: ChainPoint, active: Booleans) -> Linearised | None:
        """The derivatives at a point, or None at the border of where layers have laws."""
        try:
            lines = Linearised.at(here, self.symmetry, active)
            return lines if np.isfinite(lines.jacobian).all() else None
        except (OutsideDomainError, np.linalg.LinAlgError):
            return None

    def _along(self, here: ChainPoint, step: Array) -> ChainPoint | None:
        """The first of shorter and shorter steps that lowers the residual."""
        counts = self.problem.counts
        x = here.state.pack(counts)
        for length in (1.0, 0.5, 0.25, 0.1, 0.03):
            there = self.point(here.state.unpack(x + length * step, counts))
            if there is not None and np.linalg.norm(there.residual) < np.linalg.norm(here.residual):
                return there
        return None

    def descend(self, amplitudes: Array) -> ChainPoint | None:
        """Follow the solution at these amplitudes from a high N T down to the problem's."""
        wanted = self.problem.noise
        start, state = self.first_guess(None, amplitudes)
        if start < wanted:
            start, state = self.first_guess(wanted, amplitudes)
        lines, step = self.at(start).settle(state, _ROUGH), _STEEPEST
        before: ChainPoint | None = None
        while lines is not None and lines.point.problem.noise > wanted and lines.point.excess.max() < _OVER:
            here = lines.point
            noise = max(here.problem.noise * math.exp(-step), wanted)
            noise = 0.0 if wanted == 0.0 and noise < _COLDEST * start else noise
            there = self.at(noise).settle(self._ahead(here, before, noise), _ROUGH, lines)
            if there is not None:
                before, lines, step = here, there, min(1.4 * step, _STEEPEST)
            elif step < _SHORTEST:
                return None
            else:
                step *= 0.5
        return lines.point if lines is not None and lines.point.excess.max() < _OVER else None

    def at(self, noise: float) -> "ChainSearch":
        """The same at another N T."""
        return evolve(self, problem=evolve(self.problem, noise=noise))

    def _ahead(self, here: ChainPoint, before: ChainPoint | None, noise: float) -> ChainState:
        """Where two solutions point to, linear in log N T."""
        if before is None or noise == 0.0:
            return here.state
        counts, last = self.problem.counts, here.problem.noise
        x, ratio = here.state.pack(counts), math.log(noise / last) / math.log(last / before.problem.noise)
        guess = here.state.unpack(x + ratio * (x - before.state.pack(counts)), counts)
        return guess if self.at(noise).point(guess) is not None else here.state

    # The amplitudes ----------------------------------------------------------------------------------

    def condense(self, here: ChainPoint, tolerance: float, max_iterations: int) -> ChainPoint:
        """Climb J in the amplitudes, as far as the equations can be solved."""
        lines: Linearised | None = None
        for _ in range(max_iterations):
            self.path.append(here.value)
            if error(here) < tolerance:
                break
            lines = self.linearised(here, here.state.amplitudes > 0) if lines is None else lines
            there = None if lines is None else self._newton(lines)
            is_quick = there is not None and error(there) < _SLOW * error(here)
            there = self._climb(lines) if there is None and lines is not None else there
            if there is None:
                break
            here = self._without_faint(there)
            lines = evolve(lines, point=here) if lines is not None and is_quick and here is there else None
            self.report(error(here))
        return here

    def _newton(self, lines: Linearised) -> ChainPoint | None:
        """A step in all unknowns, if J is concave there and it helps."""
        here, counts = lines.point, self.problem.counts
        climb, concave = lines.climb
        if not concave or _length(climb) > 1.0:
            return None
        step, growth = lines.newton
        moved = here.state.unpack(here.state.pack(counts) + step, counts)
        there = self.point(evolve(moved, amplitudes=here.state.amplitudes * _factor(growth)))
        return there if there is not None and error(there) < 0.7 * error(here) else None

    def _climb(self, lines: Linearised) -> ChainPoint | None:
        """A step of the amplitudes alone, after which the rest is solved again."""
        state, (step, _) = lines.point.state, lines.climb
        if size(lines.point) > _ROUGH:
            settled = self.settle(state, _ROUGH, lines)
            return None if settled is None else settled.point
        step = step / max(_length(step), 1.0)
        x, counts = state.pack(self.problem.counts), self.problem.counts
        for length in (1.0, 0.4, 0.15, 0.05):
            ahead = state.unpack(x + lines.response(length * step), counts)
            grown = evolve(ahead, amplitudes=state.amplitudes * _factor(length * step))
            there = self.settle(grown, _ROUGH, lines)
            if there is not None:
                return there.point
        return None

    def complete(self, here: ChainPoint, tolerance: float, max_iterations: int) -> ChainPoint:
        """Condense, and let neurons condense elsewhere where one more would climb J."""
        for _ in range(here.state.amplitudes.size):
            here = self.condense(here, tolerance, max_iterations)
            state = here.state
            overlooked = (state.amplitudes == 0) & (_strengths(here) > 1.0 + OVERLOOKED)
            if error(here) >= tolerance or not overlooked.any():
                break
            started = np.where(overlooked, _NEW * _noticeable(here), state.amplitudes)
            here = ChainPoint(self.problem, evolve(state, amplitudes=started))
        return here

    def _without_faint(self, here: ChainPoint) -> ChainPoint:
        """Drop condensed neurons that have all but gone."""
        amplitudes = here.state.amplitudes
        faint = (amplitudes > 0) & (amplitudes < _FAINT * _noticeable(here)) & (here.excess < 0)
        if not faint.any():
            return here
        left = self.settle(evolve(here.state, amplitudes=np.where(faint, 0.0, amplitudes)), _ROUGH)
        return here if left is None else left.point


def size(point: ChainPoint) -> float:
    """Largest residual of the equations for t and Kt."""
    return float(np.abs(point.residual).max())


def error(point: ChainPoint) -> float:
    """Largest of the residual and of what keeps condensed neurons from being tight."""
    active = point.state.amplitudes > 0
    return max(size(point), float(np.abs(point.excess[active]).max(initial=0.0)))


def _length(step: Array) -> float:
    """Of a step in log amplitudes (L, C), in units of the longest.

    Above the first layer it may be long: an amplitude there is the multiplier of lambda <= 1, and
    lambda is nearly linear in it.
    """
    longest = np.full((len(step), 1), _LONGEST_ABOVE)
    longest[0] = _LONGEST
    return float(np.abs(step / longest).max())


def _factor(growth: Array) -> Array:
    """Of amplitudes, to first order 1 + ``growth``: linear upwards, and positive."""
    return np.where(growth > 0, 1.0 + growth, np.exp(np.minimum(growth, 0.0)))


def _strengths(point: ChainPoint) -> Array:
    """lambda of each class in each layer, (L, C)."""
    return np.stack([layer.rays.strengths for layer in point.layers])


def _noticeable(point: ChainPoint) -> Array:
    """Amplitudes that would give each class all of its kernel, (L, C)."""
    own = np.stack([np.diagonal(layer.kernel.blocks) for layer in point.layers])
    each = np.stack([np.diagonal(layer.rays.activations) for layer in point.layers])
    return own / np.maximum(each**2, 1e-300)
