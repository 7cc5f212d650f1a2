"""Several hidden layers on any kernel: the search for the kernel of one, docs/theory.md section 5.7.

For the first J = S(K_1) - [tr Kt K_1 / 2 - log Z_1(Kt)], S that of all layers above, is stationary where the
Kt that makes K_1 is their message on K_1. In the few directions V of the message the unknown is M = V^T K_1 V
and steps are Newton's; outside of them Kt is mixed with the message.
"""

from collections.abc import Callable

import numpy as np
from attrs import define, field, frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.layer import CoreSolution, HiddenLayer, LayersAbove
from fltheory.meanfield.general.symmetric import coordinates, matrix
from fltheory.numerics.validation import Array

_CORE_TOLERANCE = 5e-4  # on M, relative
_LOOSE = 0.05  # and from where a state is not used
_STEP = 2e-3  # of finite differences in M, relative
_RENEWED = 3  # steps after which these are taken again, and the first steps, at which they are each time
_CAP, _LEAST_CAP = 0.06, 0.02  # of M, relative, that one step may change
_MIXING, _LEAST_MIXING = 0.25, 0.05
_NEAR = 0.1  # residual below which the last steps are combined, and J no longer decides
_MEMORY = 5  # steps that are combined
_SOFT = 1e-8  # added to their Gram matrix, relative
_LARGEST_COMBINATION = 20.0
_ROUNDING, _EP_ERROR = 2e-4, 0.02  # fall of J that is none, and that EP's error may feign
_SOME_PROGRESS, _PROGRESS = 0.95, 0.8  # of the residual: enough where J may have risen, and whatever J does
_SLACK = 1.5  # of the residual, that is no step back
_LATTICE_ERROR = 0.01  # residual that a lattice along other directions may feign
_SMALL = 1e-300
_N_TRIALS = 6
_SHRINK = 0.35


@frozen(eq=False)
class LayerPair:
    """A hidden layer and what is above it, at one kernel: not yet a solution.

    Attributes
    ----------
    hidden
        The layer, under its Kt.
    readout
        The readout layer, or all layers up to it, on the kernel of that layer.
    action
        J, per neuron.
    """

    hidden: CoreSolution
    readout: LayersAbove
    action: float

    @property
    def gap(self) -> Array:
        """The message minus Kt, (P, P)."""
        return self.readout.message - self.hidden.state.conjugate.total

    @property
    def residual(self) -> float:
        """Norm of the gap, relative to the message."""
        return float(np.linalg.norm(self.gap) / np.linalg.norm(self.readout.message))


@define(eq=False)
class KernelSearch:
    """Newton's method for M, with what it remembers.

    Attributes
    ----------
    layer
        The hidden layer.
    n_directions
        r.
    report
        Called with each residual.
    path
        J at each step.
    curvature
        The derivative of the message, found on the way; one that is given is taken for that everywhere.
    """

    layer: HiddenLayer
    n_directions: int
    report: Callable[[float], None]
    path: list[float] = field(factory=list)
    curvature: Array | None = None

    def begin(self, guess: Array, first: LayersAbove) -> LayerPair:
        """All layers from a guess of the kernel (P, P) and those above there."""
        directions = leading_directions(first.message, self.n_directions)
        return self.resume(ConjugateKernel.of(first.message, directions), guess, first)

    def resume(self, conjugate: ConjugateKernel, kernel: Array, near: LayersAbove) -> LayerPair:
        """All layers where this one has this Kt, but for a core that gives it the overlap of this kernel.

        Raises
        ------
        ConvergenceError
            If one of them fails.
        """
        overlap = conjugate.directions.T @ kernel @ conjugate.directions
        hidden = self.layer.at_overlap(conjugate, overlap, tolerance=0.01, max_iterations=25)
        pair = self.pair(hidden, near)
        if pair is None:
            raise ConvergenceError("the readout layer is lost on the first kernel of the layer below")
        return pair

    def run(self, pair: LayerPair, *, tolerance: float, max_iterations: int) -> tuple[LayerPair, bool]:
        """Iterate until both the residual and the step in M, relative, are below the tolerance."""
        cap, mixing, history = _CAP, _MIXING, list[_Iterate]()
        is_known = self.curvature is not None
        for index in range(max_iterations):
            state = pair.hidden.state
            self.path.append(pair.action)
            self.report(pair.residual)
            self.layer.expect(pair.residual)
            response = np.asarray(np.linalg.inv(state.response()), dtype=np.float64)
            if self.curvature is None or (not is_known and (index < _RENEWED or index % _RENEWED == 0)):
                self.curvature = self._curvature(pair, response)
            newton = _Newton(state.conjugate.directions, response, self.curvature)
            scale = float(np.abs(coordinates(state.overlap)).max())
            if pair.residual < tolerance and np.abs(newton(pair.gap)).max() < tolerance * scale:
                return pair, True
            history = [*history[-_MEMORY:], _Iterate(state.conjugate.total, pair.gap, state.kernel)]
            found = self._advance(pair, newton, cap * scale, mixing, history)
            if found is None:
                break
            trials, mixing_taken, pair = found
            easy = trials <= 1
            cap = min(1.3 * cap, 2 * _CAP) if easy else max(_SHRINK**trials * cap, _LEAST_CAP)
            mixing = min(1.3 * mixing, _MIXING) if easy else max(mixing_taken, _LEAST_MIXING)
        return pair, False

    def _advance(
        self, pair: LayerPair, newton: "_Newton", largest: float, mixing: float, history: list["_Iterate"]
    ) -> tuple[int, float, LayerPair] | None:
        """The first of ever shorter steps that is none back."""
        old = newton.directions
        new = leading_directions(pair.readout.message, self.n_directions, old)
        combined = len(history) > 1 and pair.residual < _NEAR
        for trial in range(_N_TRIALS):
            base = _combination(history) if combined and trial == 0 else history[-1]
            length = _SHRINK ** max(0, trial - combined)
            step = newton(base.gap)
            step *= length * min(1.0, largest / max(np.abs(step).max(), _SMALL))
            total = base.total + length * mixing * _outside(base.gap, new)
            total += old @ matrix(newton.response @ step, self.n_directions) @ old.T
            overlap = new.T @ base.kernel @ new + matrix(step, self.n_directions)
            there = self._at(ConjugateKernel.of(total, new), overlap, pair.readout)
            if there is not None and _is_progress(pair, there):
                return trial, length * mixing, there
        return None

    def _at(self, conjugate: ConjugateKernel, overlap: Array, near: LayersAbove) -> LayerPair | None:
        try:
            hidden = self.layer.at_overlap(conjugate, overlap, tolerance=_CORE_TOLERANCE, max_iterations=10)
        except ConvergenceError:
            return None
        return self.pair(hidden, near) if hidden.error < _LOOSE else None

    def pair(self, hidden: CoreSolution, near: LayersAbove) -> LayerPair | None:
        """With the layers above on its kernel, close to given ones; None where that fails."""
        state = hidden.state
        readout = near.again(state.kernel)
        if readout is None:
            return None
        information = 0.5 * float((state.conjugate.total * state.kernel).sum()) - state.log_partition
        return LayerPair(hidden, readout, readout.action - information)

    def _curvature(self, pair: LayerPair, response: Array) -> Array:
        """d(V^T message V) / dM in coordinates, (k, k), by readouts at K_1 moved along each coordinate."""
        state, v = pair.hidden.state, pair.hidden.state.conjugate.directions
        moves = np.tensordot(response.T, state.kernel_directions(), 1)  # dK for a unit of each coordinate
        size = _STEP * float(np.abs(coordinates(state.overlap)).max())
        columns = []
        for move in moves:
            there = pair.readout.again(state.kernel + size * move)
            change = np.zeros_like(move) if there is None else there.message - pair.readout.message
            columns.append(coordinates(v.T @ change @ v) / size)
        return np.stack(columns, axis=1)


@frozen(eq=False)
class _Iterate:
    """Kt, the gap there and K_1, (P, P) each."""

    total: Array
    gap: Array
    kernel: Array


@frozen(eq=False)
class _Newton:
    """The step in M = V^T K_1 V that closes a gap, with the absolute eigenvalues of the Hessian of J.

    Attributes
    ----------
    directions
        V, (P, r).
    response, curvature
        dc / dM and d(V^T message V) / dM in coordinates, (k, k).
    """

    directions: Array
    response: Array
    curvature: Array

    def __call__(self, gap: Array) -> Array:
        values, vectors = np.linalg.eigh(0.5 * (self.curvature + self.curvature.T) - self.response)
        along = vectors.T @ coordinates(self.directions.T @ gap @ self.directions)
        return np.asarray(vectors @ (along / np.maximum(np.abs(values), 1e-6)))


def _outside(total: Array, directions: Array) -> Array:
    """What is left of a matrix without its part in the span, (P, P)."""
    return np.asarray(total - directions @ (directions.T @ total @ directions) @ directions.T)


def _is_progress(before: LayerPair, after: LayerPair) -> bool:
    """Far from a solution J must rise; close to it the error of EP in J is larger than what is left of it.

    The less J falls, the less the residual must.
    """
    residual, fall = after.residual / before.residual, before.action - after.action
    if before.residual < _NEAR:
        return residual < _SLACK or after.residual < _LATTICE_ERROR
    return fall < _ROUNDING or (fall < _EP_ERROR and residual < _SOME_PROGRESS) or residual < _PROGRESS


def _combination(history: list[_Iterate]) -> _Iterate:
    """The combination of the last iterates whose gap would be least (Anderson), or the last of them."""
    last = history[-1]
    columns = np.stack([(last.gap - past.gap).ravel() for past in history[:-1]], axis=1)
    gram = columns.T @ columns
    gram += _SOFT * np.trace(gram) / len(gram) * np.eye(len(gram))
    shares = np.linalg.solve(gram, columns.T @ last.gap.ravel())
    if np.abs(shares).sum() > _LARGEST_COMBINATION:
        return last
    shares = np.append(shares, 1.0 - shares.sum())
    names = ("total", "gap", "kernel")
    mixed = (np.tensordot(shares, np.stack([getattr(past, name) for past in history]), 1) for name in names)
    return _Iterate(*mixed)
