"""Where a function of one variable is not smooth, found from its values."""

import numpy as np

from fltheory.numerics.grids import Function
from fltheory.numerics.validation import Array, Booleans

_RANGE, _WIDTH = 30.0, 0.05  # where kinks are looked for, and half the distance at which two are told apart
_OFFSET = 0.0123  # of the first bracket, so that kinks at round numbers are inside one
_NARROW = 1e-7  # half-width of a bracket in which a smooth function is straight
_JUMP = 1e-4  # change of slope across it, relative to the slopes, that is a kink
_DECIMALS = 12  # to which a kink is known
_PARABOLIC = 2e-4  # half-width of a bracket in which a smooth function is a parabola
# Share of a change of slope or curvature that is left when the bracket shrinks by 4: 1/4 of a smooth
# one, 1 of a jump, more of something worse (2 at the cusp of a root, 4 at a step).
_LASTING = (0.6, 3.0)
_BEND, _CURVATURE_ROUNDING = 1e-3, 1e-6  # least change, relative to the curvatures and to the values
_BEND_DECIMALS, _MOST_BENDS = 4, 20


def find_kinks(function: Function) -> tuple[float, ...]:
    """The points in [-30, 30] where the slope jumps, ascending, to 12 decimals.

    Across a narrow bracket the slope of a smooth function hardly changes. A bracket is halved towards
    the largest change until it is narrow; what then lasts is a kink, where the lines on the two sides
    meet.
    """
    with np.errstate(all="ignore"):
        centre, width = _brackets(function, 2, _NARROW)
        left, right, offset = _chords(function, centre, width)
        change, steepest = np.abs(right - left), np.maximum(np.abs(left), np.abs(right))
        before = np.abs(np.subtract(*_chords(function, centre, 4 * width)[:2]))
        is_kink = change > _JUMP * np.maximum(steepest, _largest(function, 1))
        is_kink &= _lasts(change, before)
        position = centre + offset
    return _distinct(position[is_kink], _DECIMALS)


def find_bends(function: Function, kinks: tuple[float, ...]) -> tuple[float, ...]:
    """The points in [-30, 30] where only the curvature jumps, ascending, to 4 decimals.

    As kinks are found, with parabolas for lines. More than 20 are none: an oscillation too fast for them.
    """
    with np.errstate(all="ignore"):
        centre, width = _brackets(function, 3, _PARABOLIC)
        slope, change = _unlike_parabolas(function, centre, width)
        before = np.abs(_unlike_parabolas(function, centre, 4 * width)[1])
        size = np.abs(_values(function, np.array([-_RANGE, _RANGE]), np.zeros(1))).max()
        least = max(_BEND * _largest(function, 2), _CURVATURE_ROUNDING * size)
        is_bend = (np.abs(change) > least) & _lasts(np.abs(change), before)
        shift = -slope / change
        is_bend &= np.abs(shift) < 2 * width
    position = centre + shift
    near_kink = (np.abs(position[:, None] - np.asarray(kinks)) < 2 * _WIDTH).any(1)
    found = _distinct(position[is_bend & ~near_kink], _BEND_DECIMALS)
    return found if len(found) <= _MOST_BENDS else ()


def _lasts(change: Array, before: Array) -> Booleans:
    return np.asarray((change > _LASTING[0] * before) & (change < _LASTING[1] * before))


def _distinct(positions: Array, decimals: int) -> tuple[float, ...]:
    inside = positions[np.abs(positions) <= _RANGE]  # false for NaN
    return tuple(np.unique(np.round(inside, decimals) + 0.0).tolist())


def _values(function: Function, centre: Array, steps: Array) -> Array:
    return np.asarray(function(centre[:, None] + steps), dtype=float)


def _scan() -> Array:
    return np.arange(-_RANGE - _OFFSET, _RANGE + _WIDTH, _WIDTH)


def _largest(function: Function, order: int) -> float:
    """The largest derivative of this order, roughly."""
    derivative = np.abs(np.diff(np.asarray(function(_scan()), dtype=float), order)) / _WIDTH**order
    return float(derivative[np.isfinite(derivative)].max(initial=0.0))


def _brackets(function: Function, order: int, narrow: float) -> tuple[Array, float]:
    """Centres and half-width of brackets around the largest differences of this order nearby."""
    centre, width = _scan(), _WIDTH
    while width > narrow:
        width *= 0.5
        bend = np.abs(np.diff(_values(function, centre, 0.5 * width * np.arange(-4.0, 5.0)), order))
        bend = np.nan_to_num(bend, nan=0.0, posinf=0.0)
        middle = bend.argmax(1) - 0.5 * (bend.shape[1] - 1)
        centre = centre + 0.5 * width * np.clip(middle, -2, 2)
    return centre, width


def _chords(function: Function, centre: Array, width: float) -> tuple[Array, Array, Array]:
    """Slopes left and right of each bracket, and where these lines meet, from the centre."""
    far, near, after, last = _values(function, centre, width * np.array([-3.0, -1.0, 1.0, 3.0])).T
    left, right = (near - far) / (2 * width), (last - after) / (2 * width)
    return left, right, (near - after + width * (left + right)) / (right - left)


def _unlike_parabolas(function: Function, centre: Array, width: float) -> tuple[Array, Array]:
    """Differences of slope and of curvature between the parabolas right and left, at the centre."""
    steps = width * np.array([1.0, 3.0, 5.0])
    (slope, curvature), (left_slope, left_curvature) = (
        _parabola(sign * steps, _values(function, centre, sign * steps)) for sign in (1, -1)
    )
    return slope - left_slope, curvature - left_curvature


def _parabola(steps: Array, values: Array) -> tuple[Array, Array]:
    """Slope and curvature at 0 of the parabolas through values at three steps, the last axis."""
    curvature = (values[:, 2] - 2 * values[:, 1] + values[:, 0]) / (steps[1] - steps[0]) ** 2
    chord = (values[:, 1] - values[:, 0]) / (steps[1] - steps[0])
    return chord - 0.5 * curvature * (steps[0] + steps[1]), curvature
