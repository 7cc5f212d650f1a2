"""Newton's method for a few equations whose derivatives are not at hand."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
from attrs import frozen

from fltheory.numerics.validation import Array

_DIFFERENCE = 1e-5  # step of the differences, relative to unknowns above 1
_SHRINK, _N_SHORTER = 0.4, 6
_ENOUGH = 0.1  # share of a step's length by which it must lower the residual
_SLOW = 0.5  # reduction of the residual from which the derivatives are taken anew


class Residual(Protocol):
    """The equations at one point."""

    @property
    def residual(self) -> Array:
        """What should vanish, (n,)."""


_R = TypeVar("_R", bound=Residual)


@frozen(eq=False)
class Root(Generic[_R]):
    """Where ``find_root`` stopped.

    Attributes
    ----------
    x, here
        The point, (n,), and what the equations give there.
    jacobian
        Their derivatives near there, (n, n), or None if none were needed.
    n_steps
        Steps taken.
    converged
        Whether the largest residual is below the tolerance.
    """

    x: Array
    here: _R
    jacobian: Array | None
    n_steps: int
    converged: bool

    @property
    def size(self) -> float:
        """The largest residual."""
        return float(np.abs(self.here.residual).max())


def find_root(
    evaluate: Callable[[Array, _R], _R | None],
    x: Array,
    here: _R,
    *,
    tolerance: float,
    jacobian: Array | None = None,
    max_steps: int = 20,
    max_step: float = 0.5,
) -> Root[_R]:
    """Solve n equations by Newton steps with Broyden's updates and derivatives by differences.

    Parameters
    ----------
    evaluate
        The equations at a point, given what they were at one nearby; None where they have no answer.
    x, here
        The first point and the equations there.
    tolerance
        On the largest residual.
    jacobian
        The derivatives, if they are known roughly.
    max_step
        Largest entry of a step, relative to the largest unknown if that is above 1.
    """
    fresh, n_steps = False, 0
    while (size := np.abs(here.residual).max()) >= tolerance and n_steps < max_steps:
        if jacobian is None:
            jacobian, fresh = _differences(evaluate, x, here), True
        moved = _shortened(evaluate, x, here, _newton_step(jacobian, here.residual, x, max_step))
        if moved is None:
            if fresh:
                break
            jacobian = None
            continue
        step, there = moved
        change = there.residual - here.residual - jacobian @ step
        jacobian = jacobian + np.outer(change, step) / (step @ step)
        x, here, fresh, n_steps = x + step, there, False, n_steps + 1
        if np.abs(here.residual).max() > _SLOW * size:
            jacobian = None
    return Root(x, here, jacobian, n_steps, bool(np.abs(here.residual).max() < tolerance))


def _differences(evaluate: Callable[[Array, _R], _R | None], x: Array, here: _R) -> Array:
    """The derivatives (n, n), one column after the other; where a point has no answer, those of -x."""
    columns = []
    for index, entry in enumerate(x):
        step = np.zeros_like(x)
        step[index] = _DIFFERENCE * max(1.0, abs(entry))
        there = evaluate(x + step, here)
        column = -step if there is None else there.residual - here.residual
        columns.append(column / step[index])
    return np.stack(columns, axis=1)


def _newton_step(jacobian: Array, residual: Array, x: Array, max_step: float) -> Array:
    step = -np.linalg.lstsq(jacobian, residual, rcond=1e-12)[0]
    longest = max_step * max(1.0, float(np.abs(x).max()))
    return np.asarray(step * min(1.0, longest / max(float(np.abs(step).max()), 1e-300)))


def _shortened(
    evaluate: Callable[[Array, _R], _R | None], x: Array, here: _R, step: Array
) -> tuple[Array, _R] | None:
    """The longest part of a step that lowers the residual enough, and what it leads to; None if none does."""
    size, length = np.abs(here.residual).max(), 1.0
    for _ in range(_N_SHORTER):
        there = evaluate(x + length * step, here)
        if there is not None and np.abs(there.residual).max() < (1.0 - _ENOUGH * length) * size:
            return length * step, there
        length *= _SHRINK
    return None
