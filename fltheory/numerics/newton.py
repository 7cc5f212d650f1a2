"""Newton's method with a line search, for one convex function and for many functions at once."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from attrs import frozen

from fltheory.numerics.validation import Array, Booleans

_SUFFICIENT = 1e-4  # share of the predicted decrease that a step must reach
_SHRINK = 0.4
_ROUNDING = 1e-10


class Evaluation(Protocol):
    """A function at one point."""

    @property
    def value(self) -> float:
        """f(x)."""

    @property
    def gradient(self) -> Array:
        """f'(x), of the shape of x."""

    def newton_step(self) -> Array:
        """-f''(x)^{-1} f'(x), of the shape of x."""


@frozen(eq=False)
class Minimum:
    """Where ``minimise`` stopped.

    Attributes
    ----------
    x, value, residual
        The point, f there, and the largest absolute entry of the gradient.
    path
        f at every accepted point, decreasing.
    converged
        Whether ``residual`` is below the tolerance.
    """

    x: Array
    value: float
    residual: float
    path: tuple[float, ...]
    converged: bool


def minimise(
    evaluate: Callable[[Array], Evaluation],
    start: Array,
    *,
    tolerance: float,
    max_iterations: int = 50,
    max_step: float = np.inf,
    radius: float = np.inf,
) -> Minimum:
    """Minimise a convex function by Newton steps, each with a backtracking line search.

    Parameters
    ----------
    evaluate
        The function with its first two derivatives.
    tolerance
        On the largest absolute entry of the gradient.
    max_step
        Largest absolute entry of one step.
    radius
        Stop, on the border, once a row (along the last axis) has moved that far from ``start``.
    """
    x, here = start, evaluate(start)
    path = [here.value]
    for _ in range(max_iterations):
        if np.abs(here.gradient).max() < tolerance:
            break
        step = here.newton_step()
        step *= min(1.0, max_step / max(np.abs(step).max(), 1e-300))
        moved = _line_search(evaluate, x, here, step)
        if moved is None:
            break
        x, here = moved
        path.append(here.value)
        reach = np.linalg.norm(x - start, axis=-1).max()
        if reach > radius:
            x = start + (x - start) * (radius / reach)
            here = evaluate(x)
            path.append(here.value)
            break
    residual = float(np.abs(here.gradient).max())
    return Minimum(x, here.value, residual, tuple(path), residual < tolerance)


def _line_search(
    evaluate: Callable[[Array], Evaluation], x: Array, here: Evaluation, step: Array
) -> tuple[Array, Evaluation] | None:
    """The first point along the step that decreases f enough, or None."""
    slope = float(np.sum(here.gradient * step))
    length = 1.0
    for _ in range(14):
        there = evaluate(x + length * step)
        if there.value < here.value + _SUFFICIENT * length * slope + _ROUNDING * abs(here.value):
            return x + length * step, there
        length *= _SHRINK
    return None


def minimise_batch(
    evaluate: Callable[[Array], tuple[Array, Array, Array]],
    starts: Array,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 80,
    max_step: float = 2.0,
) -> tuple[Array, Array, Array, Booleans]:
    """Local minima of one function of few variables, from many starts at once.

    Steps use the absolute eigenvalues of the Hessian, so they descend where it is indefinite, and
    a trust radius of each start's own.

    Parameters
    ----------
    evaluate
        Points (B, n) -> values (B,), gradients (B, n), Hessians (B, n, n).
    starts
        Shape (B, n).

    Returns
    -------
    tuple
        Points (B, n), values (B,), Hessians (B, n, n), and whether each is a minimum (B,).
    """
    x = starts.copy()
    value, gradient, hessian = evaluate(x)
    radius = np.full(len(x), max_step)
    for _ in range(max_iterations):
        if np.abs(gradient).max(initial=0.0) < tolerance:
            break
        step = _descent_step(gradient, hessian, radius)
        new_value, new_gradient, new_hessian = evaluate(x + step)
        better = new_value <= value + 1e-12 * np.abs(value)
        x = np.where(better[:, None], x + step, x)
        value = np.where(better, new_value, value)
        gradient = np.where(better[:, None], new_gradient, gradient)
        hessian = np.where(better[:, None, None], new_hessian, hessian)
        radius = np.where(better, np.minimum(1.5 * radius, 5 * max_step), 0.3 * radius)
    lowest = np.linalg.eigvalsh(hessian)[:, 0]
    return x, value, hessian, (np.abs(gradient).max(1) < max(1e-4, tolerance)) & (lowest > 0)


def _descent_step(gradient: Array, hessian: Array, radius: Array) -> Array:
    curvature, modes = np.linalg.eigh(hessian)
    curvature = np.maximum(np.abs(curvature), 1e-3 * np.abs(curvature).max(1, keepdims=True) + 1e-12)
    step = -np.einsum("bij,bj->bi", modes, np.einsum("bij,bi->bj", modes, gradient) / curvature)
    length = np.linalg.norm(step, axis=1)
    return np.asarray(step * np.minimum(1.0, radius / np.maximum(length, 1e-300))[:, None])
