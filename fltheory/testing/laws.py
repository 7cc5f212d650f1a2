"""What a law is, and how something is held to many of them at once."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

_MOST_FAILURES = 3  # that are told of one law


class LawViolation(AssertionError):  # noqa: N818  as a sentence ends: it found a violation of a law
    """Something breaks laws that it has to obey.

    Attributes
    ----------
    failures
        What was found, in words, under the name of each law that fails.
    """

    def __init__(self, message: str, failures: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(message)
        self.failures = failures


class LawWarning(UserWarning):
    """Something lacks what is good to have and no law asks for."""


@frozen
class Law:
    """A statement that holds for all things of a kind.

    Attributes
    ----------
    name
        A word or two.
    statement
        What is held true, as the end of a sentence that begins with the thing.
    failures
        Called with the thing, yields what contradicts the statement: nothing if it holds. An
        exception counts as a contradiction.
    """

    name: str
    statement: str
    failures: Callable[[Any], Iterable[str]]

    def found_in(self, subject: object) -> tuple[str, ...]:
        """The first few contradictions, in words."""
        return tuple(itertools.islice(self._told(subject), _MOST_FAILURES))

    def _told(self, subject: object) -> Iterator[str]:
        try:
            yield from self.failures(subject)
        except Exception as error:  # of someone else's code: a finding, not ours to handle
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
            yield f"raised {type(error).__name__}: {error}{notes}"


def hold(subject: object, laws: Iterable[Law], title: str) -> None:
    """Hold something to laws, all of them, and raise one ``LawViolation`` that tells all failures."""
    laws = tuple(laws)
    failures = {law.name: found for law in laws if (found := law.found_in(subject))}
    if not failures:
        return
    lines = [f"{title} breaks {len(failures)} of {len(laws)} laws"]
    for law in laws:
        if law.name in failures:
            lines.append(f"- {law.name}: it {law.statement}")
            lines += [f"    {found}" for found in failures[law.name]]
    raise LawViolation("\n".join(lines), failures)


def differences(
    what: str, actual: object, expected: object, tolerance: object, where: NDArray[Any] | None = None
) -> Iterator[str]:
    """Say where two arrays differ most, relative to the tolerance (broadcast) of each entry.

    ``where`` (of their shape) are the values of z to name; else the index is named.
    """
    a, e = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    if a.shape != e.shape:
        yield f"{what}: expected shape {e.shape}, got {a.shape}"
        return
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=float), a.shape)
    with np.errstate(all="ignore"):
        excess = np.where(a == e, 0.0, np.abs(a - e) / np.maximum(allowed, 1e-300))
    excess = np.where(np.isnan(excess), np.inf, excess)
    if not (excess > 1.0).any():
        return
    index = np.unravel_index(excess.argmax(), a.shape)
    place = f" at z = {where[index]:.6g}" if where is not None else _place(index)
    yield (
        f"{what}{place} is {a[index]:.8g}, expected {e[index]:.8g}: off by {abs(a[index] - e[index]):.2g}, "
        f"allowed {allowed[index]:.1g} ({(excess > 1.0).sum()} of {excess.size} entries are off)"
    )


def _place(index: tuple[Any, ...]) -> str:
    return f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
