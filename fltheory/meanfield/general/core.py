"""The core c of the conjugate kernel at a fixed overlap M = V^T K_1 V: a convex problem.

log Z_1(c) - tr c M / 2 is convex in c, and its minimum is where the layer has that overlap. Solved for
c at every M, the search for the kernel is freed of how sharply peaks' shares depend on c.
"""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.general.conjugate import ConjugateKernel
from fltheory.meanfield.general.layer import CoreSolution, HiddenState
from fltheory.meanfield.general.symmetric import coordinates, matrix
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array

_CAP = 0.5  # of c, that one step may change
_SHRINK, _LEAST_CAP = 0.35, 1e-6
_ROUNDING = 1e-4  # of the objective, that is no worse
_SOFT = 1e-9  # added to the curvature, relative


class QuadraticState(HiddenState):
    """A state that knows the law of q = V^T phi phi^T V at each of its nodes.

    Attributes
    ----------
    weights
        Shares of the nodes, (S,).
    """

    weights: Array

    @abstractmethod
    def quadratic(self) -> tuple[Array, Array]:
        """Means of q in coordinates (S, k), and B (S, k, k).

        The log average of exp(x.q / 2) at a node is x.mean / 2 + x.B x / 2 up to third order.
        """


@frozen(eq=False)
class CorePoint:
    """The objective at one c, with its derivatives in coordinates."""

    value: float
    gradient: Array
    curvature: Array

    def newton_step(self) -> Array:
        curvature = self.curvature + _SOFT * np.trace(self.curvature) * np.eye(len(self.curvature))
        return np.asarray(-np.linalg.solve(curvature, self.gradient))


@frozen(eq=False)
class _CoreModel:
    """log sum_s w_s exp(x.q_s / 2 + x.B_s x / 2) - x.M / 2 on the nodes at hand."""

    log_weights: Array
    means: Array
    spread: Array
    target: Array

    def __call__(self, x: Array) -> CorePoint:
        pull = self.spread @ x
        exponents = self.log_weights + 0.5 * (self.means @ x + pull @ x)
        weights, slopes = softmax(exponents), 0.5 * self.means + pull
        mean = weights @ slopes
        centred = slopes - mean
        curvature = centred.T @ (weights[:, None] * centred) + np.tensordot(weights, self.spread, 1)
        value = float(logsumexp(exponents)) - 0.5 * float(x @ self.target)
        return CorePoint(value, mean - 0.5 * self.target, curvature)


def solve_core(
    layer: Callable[[ConjugateKernel], QuadraticState],
    conjugate: ConjugateKernel,
    overlap: Array,
    *,
    tolerance: float,
    max_iterations: int,
) -> CoreSolution:
    """The layer under the Kt of these directions, d and E whose overlap M is the given one, (r, r)."""
    target, size = coordinates(overlap), len(overlap)
    scale = np.abs(target).max()

    def look(core: Array) -> tuple[QuadraticState, float, float]:
        state = layer(evolve(conjugate, core=core))
        objective = state.log_partition - 0.5 * float((core * overlap).sum())
        return state, objective, float(np.abs(coordinates(state.overlap) - target).max() / scale)

    core = conjugate.core
    state, objective, error = look(core)
    largest = cap = _CAP * np.abs(core).max()
    for _ in range(max_iterations):
        if error < tolerance:
            break
        model = _CoreModel(np.log(state.weights), *state.quadratic(), target)
        step = minimise(model, np.zeros_like(target), tolerance=1e-7 * scale, max_iterations=40).x
        step *= min(1.0, cap / np.abs(step).max())
        while cap > _LEAST_CAP:
            there, lower, closer = look(core + matrix(step, size))
            if lower < objective + _ROUNDING or closer < 0.5 * error:
                break
            step *= _SHRINK
            cap = np.abs(step).max()
        else:
            break
        core = core + matrix(step, size)
        state, objective, error = there, lower, closer
        cap = min(2 * cap, largest)
    return CoreSolution(state, error)
