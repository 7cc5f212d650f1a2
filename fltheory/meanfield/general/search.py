"""Two hidden layers on any kernel: the search for K_1, docs/theory.md section 5.7.

J = S_2(K_1) - [tr Kt K_1 / 2 - log Z_1(Kt)] is stationary where the Kt that makes K_1 is the message of the
readout layer on K_1. In the few directions V of the message the unknown is M = V^T K_1 V and steps are
Newton's; outside of them Kt is mixed with the message.
"""

from collections.abc import Callable

import numpy as np
from attrs import define, field, frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.core import CoreSolution, solve_core
from fltheory.meanfield.general.lattice import Lattice
from fltheory.meanfield.general.message import Readout, ReadoutProblem
from fltheory.meanfield.general.symmetric import coordinates, matrix
from fltheory.numerics.validation import Array

_CORE_TOLERANCE = 5e-4  # on M, relative
_LOOSE = 0.05  # and from where a state is not used
_STEP = 2e-3  # of finite differences in M, relative
_RENEWED = 3  # steps after which these are taken again, and the first steps, at which they are each time
_CAP, _LEAST_CAP = 0.06, 0.02  # of M, relative, that one step may change
_MIXING, _LEAST_MIXING = 0.25, 0.05
_MEMORY = 5  # steps that are combined outside of V
_NEAR = 0.1  # residual below which they are
_LARGEST_COMBINATION = 20.0
_ROUNDING = 2e-4  # of J, that is no worse
_PROGRESS = 0.8  # of the residual, that is enough whatever J does
_N_TRIALS = 6
_SHRINK = 0.35


@frozen(eq=False)
class LayerPair:
    """Both layers at one kernel: not yet a solution.

    Attributes
    ----------
    hidden
        The first layer, under its Kt.
    readout
        The second, on the kernel of the first (or on what stands in for it on the way).
    action
        J, per neuron.
    """

    hidden: CoreSolution
    readout: Readout
    action: float

    @property
    def gap(self) -> Array:
        """The message minus Kt, (P, P)."""
        return self.readout.message - self.hidden.state.conjugate.total

    @property
    def residual(self) -> float:
        """Norm of the gap, relative to the message."""
        return float(np.linalg.norm(self.gap) / np.linalg.norm(self.readout.message))


@frozen(eq=False)
class Blend:
    """On the way to hard problems the readout sees share * K_1 + (1 - share) * guess."""

    share: float = 1.0
    guess: Array | None = None

    def __call__(self, kernel: Array) -> Array:
        return kernel if self.guess is None else self.share * kernel + (1.0 - self.share) * self.guess


@define(eq=False)
class KernelSearch:
    """Newton's method for M, with what it remembers.

    Attributes
    ----------
    lattice, problem
        The two layers.
    n_directions
        r.
    report
        Called with each residual.
    """

    lattice: Lattice
    problem: ReadoutProblem
    n_directions: int
    report: Callable[[float], None]
    blend: Blend = field(factory=Blend)
    path: list[float] = field(factory=list)

    def begin(self, guess: Array, first: Readout) -> LayerPair:
        """Both layers from a guess of K_1 (P, P) and the readout there."""
        directions = leading_directions(first.message, self.n_directions)
        return self.resume(ConjugateKernel.of(first.message, directions), guess, first)

    def resume(self, conjugate: ConjugateKernel, kernel: Array, near: Readout) -> LayerPair:
        """Both layers where the first has this Kt, but for a core that gives it the overlap of this K_1.

        Raises
        ------
        ConvergenceError
            If one of them fails.
        """
        overlap = conjugate.directions.T @ kernel @ conjugate.directions
        hidden = solve_core(self.lattice, conjugate, overlap, tolerance=0.01, max_iterations=25)
        pair = self._pair(hidden, near)
        if pair is None:
            raise ConvergenceError("the readout layer is lost on the first kernel of the first layer")
        return pair

    def run(self, pair: LayerPair, *, tolerance: float, max_iterations: int) -> tuple[LayerPair, bool]:
        """Iterate until both the residual and the step in M, relative, are below the tolerance."""
        cap, mixing, history = _CAP, _MIXING, list[tuple[Array, Array]]()
        curvature: Array | None = None
        for index in range(max_iterations):
            state = pair.hidden.state
            self.path.append(pair.action)
            self.report(pair.residual)
            response = np.asarray(np.linalg.inv(state.response()), dtype=np.float64)
            if curvature is None or index < _RENEWED or index % _RENEWED == 0:
                curvature = self._curvature(pair, response)
            step = self._newton(pair, response, curvature)
            size = float(np.abs(step).max() / np.abs(coordinates(state.overlap)).max())
            if pair.residual < tolerance and size < tolerance:
                return pair, True
            history = [*history[-_MEMORY:], (state.conjugate.total, pair.gap)]
            found = self._advance(pair, response, step * min(1.0, cap / size), mixing, history)
            if found is None:
                break
            trials, mixing_taken, pair = found
            easy = trials <= 1
            cap = min(1.3 * cap, 2 * _CAP) if easy else max(_SHRINK**trials * cap, _LEAST_CAP)
            mixing = min(1.3 * mixing, _MIXING) if easy else max(mixing_taken, _LEAST_MIXING)
        return pair, False

    def _advance(
        self,
        pair: LayerPair,
        response: Array,
        step: Array,
        mixing: float,
        history: list[tuple[Array, Array]],
    ) -> tuple[int, float, LayerPair] | None:
        """The first of ever shorter steps that raises J or lowers the residual."""
        state, old = pair.hidden.state, pair.hidden.state.conjugate.directions
        new = leading_directions(pair.readout.message, self.n_directions, old)
        core_step = matrix(response @ step, self.n_directions)
        combined = len(history) > 1 and pair.residual < _NEAR
        for trial in range(_N_TRIALS):
            if combined and trial == 0:
                total, gap = _anderson(history, new)
            else:
                total, gap = state.conjugate.total, pair.gap
            length = _SHRINK ** max(0, trial - combined)
            total = total + length * mixing * _outside(gap, new) + length * old @ core_step @ old.T
            overlap = new.T @ state.kernel @ new + length * matrix(step, self.n_directions)
            there = self._at(ConjugateKernel.of(total, new), overlap, pair.readout)
            if there is not None and (
                there.action > pair.action - _ROUNDING or there.residual < _PROGRESS * pair.residual
            ):
                return trial, length * mixing, there
        return None

    def _at(self, conjugate: ConjugateKernel, overlap: Array, near: Readout) -> LayerPair | None:
        try:
            hidden = solve_core(
                self.lattice, conjugate, overlap, tolerance=_CORE_TOLERANCE, max_iterations=10
            )
        except ConvergenceError:
            return None
        return self._pair(hidden, near) if hidden.error < _LOOSE else None

    def _pair(self, hidden: CoreSolution, near: Readout) -> LayerPair | None:
        state = hidden.state
        readout = self.problem.again(self.blend(state.kernel), near)
        if readout is None:
            return None
        information = 0.5 * float((state.conjugate.total * state.kernel).sum()) - state.log_partition
        return LayerPair(hidden, readout, readout.point.value - self.blend.share * information)

    def _curvature(self, pair: LayerPair, response: Array) -> Array:
        """d(V^T message V) / dM in coordinates, (k, k), by readouts at K_1 moved along each coordinate."""
        state, v = pair.hidden.state, pair.hidden.state.conjugate.directions
        moves = np.tensordot(response.T, state.kernel_directions(), 1)  # dK for a unit of each coordinate
        size = _STEP * float(np.abs(coordinates(state.overlap)).max())
        columns = []
        for move in moves:
            there = self.problem.again(self.blend(state.kernel + size * move), pair.readout)
            change = np.zeros_like(move) if there is None else there.message - pair.readout.message
            columns.append(coordinates(v.T @ change @ v) / size)
        return np.stack(columns, axis=1)

    def _newton(self, pair: LayerPair, response: Array, curvature: Array) -> Array:
        """The step in M, with the absolute eigenvalues of the Hessian of J."""
        v = pair.hidden.state.conjugate.directions
        values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T) - response)
        along = vectors.T @ coordinates(v.T @ pair.gap @ v)
        return np.asarray(vectors @ (along / np.maximum(np.abs(values), 1e-6)))


def _outside(total: Array, directions: Array) -> Array:
    """What is left of a matrix without its part in the span, (P, P)."""
    return np.asarray(total - directions @ (directions.T @ total @ directions) @ directions.T)


def _anderson(history: list[tuple[Array, Array]], directions: Array) -> tuple[Array, Array]:
    """Kt and gap combined from the last steps such that the gap outside of V is least."""
    total, gap = history[-1]
    changes = [(total - t, gap - g) for t, g in history[:-1]]
    columns = np.stack([_outside(g, directions).ravel() for _, g in changes], axis=1)
    gram = columns.T @ columns
    gram += 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    mixing = np.linalg.solve(gram, columns.T @ _outside(gap, directions).ravel())
    if np.abs(mixing).sum() > _LARGEST_COMBINATION:
        return total, gap
    for share, (t, g) in zip(mixing, changes, strict=True):
        total, gap = total - share * _outside(t, directions), gap - share * g
    return total, gap
