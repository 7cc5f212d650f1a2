"""The laws of a nonlinearity: what the theory and the sampler take for granted of phi."""

import inspect
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, check_instance
from fltheory.testing.laws import Law, LawWarning, differences, hold

_NEAR = np.sort(np.random.default_rng(0).uniform(-8.0, 8.0, 200))  # off kinks, which are at round numbers
_FAR = np.concatenate([-np.logspace(8, -12, 41), [0.0], np.logspace(-12, 8, 41)])
_FARTHEST_SINGLE = 1e4  # |z| up to which single precision has to be finite
_INFINITY = 1e8  # where slopes at infinity are read off: sqrt|z| is flat to 4e-5 there
_STEP = 1e-3
_SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3))
_HELD_ELSEWHERE = ("derivative", "asymptotic_slopes", "is_linear", "is_bounded")
_ESTIMATES = ("quadrature_error", "gaussian_rule")  # of which there is more than one good answer


def check_nonlinearity(phi: Nonlinearity) -> None:
    """Hold a nonlinearity to all ``NONLINEARITY_LAWS``.

    What is good to have and no law (equal parameters make equal, hashable, picklable values with a
    telling repr) is asked for by a ``LawWarning``.

    Raises
    ------
    TypeError
        If ``phi`` is no ``Nonlinearity``.
    LawViolation
        An ``AssertionError`` that says which laws fail, at which input, and by how much.
    """
    phi = check_instance("phi", phi, Nonlinearity)
    with np.errstate(all="ignore"):
        hold(phi, NONLINEARITY_LAWS, f"the nonlinearity {phi!r}")
    for wish in _wishes(phi):
        warnings.warn(f"{phi!r}: {wish}", LawWarning, stacklevel=2)


# The laws ----------------------------------------------------------------------------------------


def _wrong_forms(phi: Nonlinearity) -> Iterator[str]:
    import torch

    for shape in _SHAPES:
        z = np.asarray(np.random.default_rng(1).standard_normal(shape))
        yield from _wrong_form(_at(phi, z), np.float64, shape)
        for dtype in (torch.float64, torch.float32):
            tensor = torch.tensor(z, dtype=dtype)
            yield from _wrong_form(_at(phi, tensor), dtype, shape)
    z = _NEAR[:24].reshape(4, 6).copy()
    for what, view in (("a transposed array", z.T), ("every other entry", z[:, ::2])):
        yield from differences(f"phi of {what}", _called(phi, view), _at(phi, view), _rounding(view))


def _wrong_form(value: Any, dtype: object, shape: tuple[int, ...]) -> Iterator[str]:
    kind = "numpy" if dtype is np.float64 else "torch"
    if not type(value).__module__.startswith(kind):
        yield f"of {kind} input of shape {shape} it is of type {type(value).__name__}"
    elif value.dtype != dtype:
        expected = getattr(dtype, "__name__", dtype)
        yield f"of {kind} input of shape {shape} it has dtype {value.dtype}, expected {expected}"
    elif tuple(value.shape) != shape:
        yield f"of {kind} input of shape {shape} it has shape {tuple(value.shape)}"


def _couplings(phi: Nonlinearity) -> Iterator[str]:
    together = np.asarray(_at(phi, _NEAR))
    alone = np.concatenate([np.atleast_1d(_at(phi, _NEAR[i : i + 1])) for i in range(len(_NEAR))])
    allowed = _rounding(together)
    yield from differences(f"phi among {len(_NEAR)} entries", together, alone, allowed, _NEAR)
    order = np.random.default_rng(2).permutation(len(_NEAR))
    yield from differences(
        "phi in another order", _at(phi, _NEAR[order]), together[order], allowed[order], _NEAR[order]
    )
    table = np.asarray(_at(phi, _NEAR.reshape(8, 25)))
    yield from differences("phi in an array of shape (8, 25)", table.ravel(), together, allowed, _NEAR)


def _impurities(phi: Nonlinearity) -> Iterator[str]:
    import torch

    for name, function in (("phi", phi), ("derivative", phi.derivative)):
        z = _NEAR.copy()
        first = np.array(_called(function, z))
        yield from differences(f"the input of {name}, after the call", z, _NEAR, 0.0)
        _at(function, 3.0 * _NEAR[:7] + 1.0)  # what a state would remember
        yield from differences(f"{name}, called again", _at(function, _NEAR.copy()), first, 0.0, _NEAR)
        tensor = torch.tensor(_NEAR)
        _called(function, tensor)
        yield from differences(f"the torch input of {name}, after the call", tensor.numpy(), _NEAR, 0.0)


def _disagreements(phi: Nonlinearity) -> Iterator[str]:
    import torch

    here = np.asarray(_at(phi, _NEAR))
    there = _at(phi, torch.tensor(_NEAR)).numpy()
    yield from differences("phi in torch", there, here, _rounding(here), _NEAR)
    single = _at(phi, torch.tensor(_NEAR, dtype=torch.float32)).numpy()
    yield from differences("phi in torch, single precision", single, here, 1e-4 * (1 + np.abs(here)), _NEAR)


def _wrong_gradients(phi: Nonlinearity) -> Iterator[str]:
    import torch

    leaf = torch.tensor(np.concatenate([_NEAR, _FAR])).requires_grad_(True)
    total = _called(phi, leaf).sum()
    if not total.requires_grad:
        yield "torch cannot differentiate it: the gradient is lost on the way through phi"
        return
    gradient = torch.autograd.grad(total, leaf)[0].numpy()
    lost = np.flatnonzero(~np.isfinite(gradient))
    if lost.size:
        yield f"the gradient of torch is {gradient[lost[0]]} at z = {leaf[lost[0]].item():.6g}"
    gradient, (slope, error) = gradient[: len(_NEAR)], _slope(phi, _NEAR)
    yield from differences("the gradient of torch", gradient, slope, _near_slope(slope, error), _NEAR)
    declared = _at(phi.derivative, torch.tensor(_NEAR)).detach().numpy()
    yield from differences("derivative in torch", declared, gradient, _near_slope(slope, error), _NEAR)


def _wrong_derivatives(phi: Nonlinearity) -> Iterator[str]:
    slope, error = _slope(phi, _NEAR)
    declared = np.asarray(_at(phi.derivative, _NEAR))
    yield from differences("derivative", declared, slope, _near_slope(slope, error), _NEAR)
    table = np.asarray(_at(phi.derivative, _NEAR.reshape(8, 25)))
    yield from differences("derivative of an array", table.ravel(), declared, _rounding(declared), _NEAR)


def _roughness(phi: Nonlinearity) -> Iterator[str]:
    slope, error = _slope(phi, _NEAR)
    rough = _is_rough(slope, error)
    if rough.mean() > 0.05:
        yield (
            f"it varies over less than {2 * _STEP:g}: difference quotients with steps {_STEP:g} and "
            f"{2 * _STEP:g} differ by {error[rough].max():.2g}, first at z = {_NEAR[rough][0]:.6g}"
        )
        return
    grid = np.linspace(-8.0, 8.0, 3201)
    jumps = np.abs(np.diff(np.asarray(_at(phi, grid))))
    for cell in np.argsort(-jumps)[:4]:
        z, height = _narrowed(phi, grid[cell], grid[cell + 1])
        if not height < 1e-6:
            yield f"it jumps by {height:.3g} at z = {z:.6g}"


def _infinities(phi: Nonlinearity) -> Iterator[str]:
    import torch

    single = _FAR[np.abs(_FAR) <= _FARTHEST_SINGLE]
    for what, z, value in (
        ("phi", _FAR, _at(phi, _FAR)),
        ("derivative", _FAR, _at(phi.derivative, _FAR)),
        ("phi in torch", _FAR, _at(phi, torch.tensor(_FAR)).numpy()),
        ("phi in single precision", single, _at(phi, torch.tensor(single, dtype=torch.float32)).numpy()),
    ):
        lost = np.flatnonzero(~np.isfinite(value))
        if lost.size:
            nearest = lost[np.abs(z[lost]).argmin()]
            yield f"{what} is {np.asarray(value)[nearest]} at z = {z[nearest]:.6g}"


def _wrong_slopes(phi: Nonlinearity) -> Iterator[str]:
    slopes = phi.asymptotic_slopes
    if not (isinstance(slopes, tuple) and len(slopes) == 2 and np.isfinite(slopes).all()):
        yield f"asymptotic_slopes is {slopes!r}, expected two finite numbers (s_-, s_+)"
        return
    for name, slope, far in zip(("-infinity", "infinity"), slopes, (-_INFINITY, _INFINITY), strict=True):
        low, high = np.asarray(_at(phi, np.array([far, 2 * far])))
        seen = (high - low) / far
        if not abs(seen - slope) <= 1e-4 * (1 + abs(seen)):
            yield f"the slope at {name} is declared {slope:.8g}, but from z = {far:g} on it is {seen:.8g}"


def _wrong_kinds(phi: Nonlinearity) -> Iterator[str]:
    slopes = phi.asymptotic_slopes
    if phi.is_bounded != (tuple(slopes) == (0.0, 0.0)):
        yield f"is_bounded is {phi.is_bounded}, but the slopes at infinity are {slopes}"
    z = np.concatenate([_NEAR, 4 * _NEAR])
    values = np.asarray(_at(phi, z))
    slope = values[-1] / z[-1]
    deviation = np.abs(values - slope * z).max() / max(abs(slope), 1e-300)
    if phi.is_linear and not (slope != 0 and deviation < 1e-9):
        worst = np.abs(values - slope * z).argmax()
        yield f"is_linear is True, but phi({z[worst]:.6g}) = {values[worst]:.8g} is not {slope:.8g} z"
    if not phi.is_linear and slope != 0 and deviation < 1e-13:
        yield f"is_linear is False, but phi(z) = {slope:.8g} z"


def _unresolved(phi: Nonlinearity) -> Iterator[str]:
    if len(phi.kinks) > _MOST_KINKS:
        yield f"it has {len(phi.kinks)} kinks or turns as sharp, expected {_MOST_KINKS} at most"
        return
    for scale in (0.3, 1.0, 3.0):
        error = phi.quadrature_error(scale)
        if not error < _RESOLVED:
            yield f"quadrature_error({scale:g}) is {error:.2g}, expected below {_RESOLVED:g}"


def _wrong_declarations(phi: Nonlinearity) -> Iterator[str]:
    bare = _Bare(phi)
    for name in _declared(phi):
        declared, worked_out = getattr(phi, name), getattr(bare, name)
        if callable(worked_out):
            yield from _wrong_averages(name, declared, worked_out)
        elif np.shape(declared) != np.shape(worked_out) or not np.allclose(declared, worked_out, atol=1e-6):
            yield f"{name} is declared {declared!r}, but the formula gives {worked_out!r}"


def _wrong_averages(name: str, declared: Callable[..., Any], worked_out: Callable[..., Any]) -> Iterator[str]:
    for arguments in _arguments(worked_out):
        expected = np.asarray(worked_out(**arguments))
        allowed = _AVERAGE * (1.0 + float(np.abs(expected).max(initial=0.0)))
        given = ", ".join(f"{key} = {np.array2string(v, precision=3)}" for key, v in arguments.items())
        for found in differences(name, declared(**arguments), expected, allowed):
            yield f"{found}, for {given}"


NONLINEARITY_LAWS: tuple[Law, ...] = (
    Law("form", "returns float64 numpy for numpy, torch for torch, of the shape that came", _wrong_forms),
    Law("elementwise", "depends, entry by entry, on that entry alone", _couplings),
    Law("pure", "is a function: the same value at each call, and the input left alone", _impurities),
    Law("torch", "has the same values in torch as in numpy", _disagreements),
    Law("gradient", "can be differentiated by torch, and agrees with derivative", _wrong_gradients),
    Law("derivative", "has the derivative that differences of its values give", _wrong_derivatives),
    Law("continuous", "is continuous, and smooth but for isolated kinks", _roughness),
    Law("finite", f"is finite, with its derivative, up to |z| = {_INFINITY:g}", _infinities),
    Law("slopes at infinity", "has the asymptotic_slopes that it shows far out", _wrong_slopes),
    Law("kind", "is_linear and is_bounded if and only if it is", _wrong_kinds),
    Law("resolved", "varies slowly enough for averages over a Gaussian to be taken on grids", _unresolved),
    Law("declarations", "declares nothing but what its formula gives", _wrong_declarations),
)
"""What ``check_nonlinearity`` holds a nonlinearity to."""


# What they need ----------------------------------------------------------------------------------

_AVERAGE = 1e-8  # of a Gaussian average, absolute and relative: what the defaults reach for any phi
_MOST_KINKS = 100
_RESOLVED = 1e-6  # relative error of numeric averages


class _Bare(Nonlinearity):
    """The formula of a nonlinearity and nothing declared: its answers are the numeric defaults."""

    def __init__(self, phi: Nonlinearity) -> None:
        self._phi = phi

    def __call__(self, z: Any) -> Any:
        return self._phi(z)


def _at(function: Callable[[Any], Any], z: Any) -> Any:
    """A value at a copy of z, which ``function`` may spoil."""
    return _called(function, z.copy() if isinstance(z, np.ndarray) else z.clone())


def _called(function: Callable[[Any], Any], z: Any) -> Any:
    """A value, or an exception that says at which input."""
    try:
        return function(z)
    except Exception as error:
        kind = f"{type(z).__module__.partition('.')[0]} input"
        error.add_note(f"from {kind} of shape {tuple(z.shape)} and dtype {z.dtype}")
        raise


def _rounding(values: Array) -> Array:
    return np.asarray(1e-12 * (1.0 + np.abs(values)))


def _slope(phi: Nonlinearity, z: Array) -> tuple[Array, Array]:
    """phi' by fourth-order differences, and their error, large around kinks."""
    fine, coarse = (
        np.asarray(8 * (_at(phi, z + h) - _at(phi, z - h)) - (_at(phi, z + 2 * h) - _at(phi, z - 2 * h)))
        / (12 * h)
        for h in (_STEP, 2 * _STEP)
    )
    return fine, np.abs(fine - coarse)


def _is_rough(slope: Array, error: Array) -> Any:
    return ~(error <= 1e-3 * (1.0 + np.abs(slope)))


def _near_slope(slope: Array, error: Array) -> Array:
    """What a derivative may differ from differences; anything where those say nothing."""
    allowed = 1e-8 * (1.0 + np.abs(slope)) + 2.0 * error
    return np.where(_is_rough(slope, error), np.inf, allowed)


def _narrowed(phi: Nonlinearity, low: float, high: float) -> tuple[float, float]:
    """Where in an interval phi changes most, to rounding, and by how much there."""
    for _ in range(36):
        z = np.array([low, 0.5 * (low + high), high])
        first, second = np.abs(np.diff(np.asarray(_at(phi, z))))
        low, high = (z[0], z[1]) if first > second else (z[1], z[2])
    change = np.diff(np.asarray(_at(phi, np.array([low, high]))))
    return float(low), float(np.abs(change).max())


def _declared(phi: Nonlinearity) -> list[str]:
    """What a class overrides of the base class's numeric defaults and no law of its own holds."""
    base = vars(Nonlinearity)
    return [
        name
        for name in base
        if not name.startswith("_")
        and name not in _HELD_ELSEWHERE + _ESTIMATES
        and inspect.getattr_static(type(phi), name) is not base[name]
    ]


def _arguments(method: Callable[..., Any]) -> Iterator[dict[str, Array]]:
    """Arguments of each kind that a Gaussian average takes, by the names of its parameters."""
    names = list(inspect.signature(method).parameters)
    for values in itertools.islice(zip(*(itertools.cycle(_VALUES[name]) for name in names), strict=True), 8):
        yield dict(zip(names, values, strict=True))


def _covariances() -> list[Array]:
    """Independent, correlated, equal and opposite, nearly equal, silent, small and large inputs."""
    rng = np.random.default_rng(3)
    factor = rng.standard_normal((4, 6))
    twins = np.concatenate([factor[:2], -factor[:1], factor[:1] + 1e-4 * factor[1:2], 0 * factor[:1]])
    kernels = [f @ f.T / 6 for f in (np.eye(3) * np.sqrt(6), factor, twins)]
    return [*kernels, 1e-4 * kernels[1], 9.0 * kernels[1], np.ones((1, 1))]


_VALUES: dict[str, list[Array]] = {
    "covariance": _covariances(),
    "mean": [np.array([-1.5, 0.0, 0.4]), np.zeros(3), np.array([3.0, -3.0, 0.1])],
    "variance": [np.array([1.0, 0.3, 4.0]), np.zeros(3), np.full(3, 9.0)],
}


def _wishes(phi: Nonlinearity) -> Iterator[str]:
    try:
        twin = pickle.loads(pickle.dumps(phi))
    except Exception as error:
        yield f"cannot be pickled, which parallel work needs ({error})"
    else:
        if twin != phi:
            yield "expected equal parameters to make equal values, as attrs.frozen does"
    try:
        hash(phi)
    except TypeError as error:
        yield f"expected it to be hashable, as attrs.frozen makes it ({error})"
    if type(phi).__repr__ is object.__repr__:
        yield "expected a repr that shows the parameters, as attrs.frozen writes it"
