"""Argument checks: every refusal names the argument, what was expected and what came."""

import hashlib
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from numbers import Integral, Real
from types import EllipsisType
from typing import Any, TypeVar

import numpy as np
from attrs import Converter
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)
Shape = tuple[str | int | EllipsisType, ...]  # as ``fits`` reads it


def checked(check: Callable[..., Any], **options: Any) -> Any:
    """Turn ``check(name, value, **options)`` into an attrs converter that knows its field's name."""
    return Converter(lambda value, field: check(field.name, value, **options), takes_field=True)


def optional(check: Callable[..., Any]) -> Callable[..., Any]:
    """``check``, but None passes."""
    return lambda name, value, **options: None if value is None else check(name, value, **options)


def describe(value: object) -> str:
    """What came, in few words: never a whole array."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = repr(value)
    except Exception:  # an object of someone else's, or an integer too long for Python to write out
        text = "without a printable form"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _refuse(kind: type[Exception], name: str, expected: str, value: object) -> Exception:
    return kind(f"{name}: expected {expected}, got {describe(value)}")


def check_real(
    name: str,
    value: object,
    *,
    minimum: float = -math.inf,
    exclusive: bool = False,
    allow_inf: bool = False,
) -> float:
    """A finite real number, at least ``minimum`` (above it if ``exclusive``), as a float."""
    bound = "" if minimum == -math.inf else f" {'above' if exclusive else 'of at least'} {minimum:g}"
    expected = f"a{'' if allow_inf else ' finite'} real number{bound}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise _refuse(TypeError, name, expected, value)
    try:
        number = float(value)
    except OverflowError:
        raise _refuse(ValueError, name, expected, value) from None
    low_enough = number <= minimum if exclusive else number < minimum
    if math.isnan(number) or low_enough or (math.isinf(number) and not (allow_inf and number > 0)):
        raise _refuse(ValueError, name, expected, value)
    return number


def check_integer(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """A whole number (not a bool, not a float) from ``minimum`` to ``maximum``."""
    upper = "" if maximum is None else f" and at most {maximum}"
    expected = f"an integer of at least {minimum}{upper}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise _refuse(TypeError, name, expected, value)
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise _refuse(ValueError, name, expected, value)
    return number


def check_choice(name: str, value: object, choices: Collection[object]) -> Any:
    """One of the listed values."""
    expected = "one of " + ", ".join(map(repr, choices))
    if not isinstance(value, str | None):
        raise _refuse(TypeError, name, expected, value)
    if value not in choices:
        raise _refuse(ValueError, name, expected, value)
    return value


def check_flag(name: str, value: object, *, optional: bool = False) -> Any:
    """True or False (or None, if ``optional``)."""
    if isinstance(value, (bool, np.bool_)) or (optional and value is None):
        return value
    raise _refuse(TypeError, name, "True, False or None" if optional else "True or False", value)


def check_instance(name: str, value: object, kind: type, *, optional: bool = False) -> Any:
    """An instance of ``kind`` (a class given by mistake for its instance is pointed out)."""
    if isinstance(value, kind) or (optional and value is None):
        return value
    hint = " (a class, not an instance: call it)" if isinstance(value, type) else ""
    raise TypeError(f"{name}: expected a {kind.__name__}, got {describe(value)}{hint}")


def to_numpy(value: object) -> NDArray[Any]:
    """Anything as a numpy array, or a ``TypeError`` that says why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a masked entry of a list: it becomes NaN
            return np.asarray(value)
    except Exception as error:  # ragged lists, tensors on a device, an object of someone else's
        raise TypeError(f"not an array: {error}") from None


def fits(actual: tuple[int, ...], shape: Shape) -> bool:
    """Whether a shape is as wanted.

    An integer must match exactly, a name ("P") stands for any length above zero, a final ``...`` for
    any further axes.
    """
    if shape and shape[-1] is ...:
        shape, actual = shape[:-1], actual[: len(shape) - 1]
    return len(actual) == len(shape) and all(
        length == want if isinstance(want, int) else length > 0
        for length, want in zip(actual, shape, strict=True)
    )


def shape_text(shape: Shape) -> str:
    """A wanted shape as tuples are written: (2,), (P, m), (C, ...)."""
    entries = ["..." if want is ... else str(want) for want in shape]
    return f"({', '.join(entries)}{',' * (len(entries) == 1)})"


def check_array(name: str, value: object, shape: Shape, *, allow_bool: bool = False) -> Array:
    """A finite real array of a shape that ``fits``, as a read-only float64 copy."""
    expected = f"a finite real array of shape {shape_text(shape)}"
    if np.ma.is_masked(value):
        raise _refuse(ValueError, name, expected + " without masked entries", value)
    try:
        raw = to_numpy(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected {expected}, got {describe(value)} ({error})") from None
    if raw.dtype.kind not in ("biuf" if allow_bool else "iuf"):
        raise _refuse(TypeError, name, expected, value if raw.ndim == 0 else raw)
    if not fits(raw.shape, shape):
        raise _refuse(ValueError, name, expected, raw)
    if not (np.abs(raw) <= np.finfo(np.float64).max).all():  # false for NaN too
        raise ValueError(f"{name}: expected {expected}, got NaN or infinite entries")
    return read_only(raw)


def check_labels(name: str, value: object, length: int | None = None) -> Integers:
    """Integer class labels, one an input, of at least two classes, as a read-only int64 copy."""
    expected = f"integer class labels of shape ({'P' if length is None else length},)"
    if np.ma.is_masked(value):
        raise _refuse(ValueError, name, expected + " without masked entries", value)
    try:
        raw = to_numpy(value)
    except TypeError:
        raise _refuse(TypeError, name, expected, value) from None
    if raw.dtype.kind not in "iu":
        raise _refuse(TypeError, name, expected, value if raw.ndim == 0 else raw)
    if raw.ndim != 1 or raw.size == 0 or (length is not None and len(raw) != length):
        raise _refuse(ValueError, name, expected, raw)
    if len(np.unique(raw)) < 2:
        raise ValueError(f"{name}: expected at least two classes, got only class {raw[0]}")
    if raw.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected {expected}, got one of {raw.max()}")
    return sealed(np.array(raw, dtype=np.int64))


def check_sequence(name: str, value: object, check: Callable[..., Any], **options: Any) -> tuple[Any, ...]:
    """A non-empty sequence (something with an order) whose entries each pass ``check``, as a tuple."""
    if isinstance(value, str | bytes | Set | Mapping) or not isinstance(value, Iterable):
        raise _refuse(TypeError, name, "a sequence", value)
    try:
        entries = tuple(value)
    except TypeError:  # an array of no dimension
        raise _refuse(TypeError, name, "a sequence", value) from None
    if not entries:
        raise ValueError(f"{name}: expected at least one entry, got none")
    return tuple(check(f"{name}[{i}]", entry, **options) for i, entry in enumerate(entries))


def sealed(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """The array itself, which refuses writing from here on."""
    array.setflags(write=False)
    return array


def read_only(values: object) -> Array:
    """A float64 copy that refuses writing: what every public array is."""
    return sealed(np.array(values, dtype=np.float64, order="C"))


def fingerprint(*parts: object) -> str:
    """A hash of the content of arrays (and of the repr of anything else)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()
