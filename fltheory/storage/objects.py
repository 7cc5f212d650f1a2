"""Frozen objects as plain data and arrays, and back: only this package's own classes are ever made."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from attrs import Attribute, fields, frozen, has

from fltheory.errors import CheckpointError
from fltheory.numerics.validation import Array, sealed
from fltheory.storage.task import StoredTask
from fltheory.task import Task

_ROOMS = ("meanfield", "model", "network.moves", "nonlinearity", "sampler", "storage.task")
_NAME = re.compile(r"[a-z_.]{1,80}:[A-Za-z_]{1,40}")
_PLAIN = (type(None), bool, int, float, str)


class ForeignClassError(TypeError):
    """An object, or a part of it, is of a class that this package does not define."""


class Writer:
    """Objects as data and arrays; an object or array that is met again is not written again.

    Attributes
    ----------
    objects
        Of each object its class and fields: parts before the whole.
    arrays
        By name.
    """

    def __init__(self, given: Mapping[str, object] | None = None) -> None:
        """``given`` are objects that the reader will have, by name."""
        self.objects: list[Any] = []
        self.arrays: dict[str, Array] = {}
        self._known: dict[int, tuple[Any, object]] = {
            id(value): ({"given": name}, value) for name, value in (given or {}).items()
        }  # with the value, which keeps its id from being used again

    def write(self, value: object) -> Any:
        """What stands for a value in JSON.

        Raises
        ------
        ForeignClassError
            If a class is not this package's.
        """
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, tuple | list):
            return [self.write(entry) for entry in value]
        if id(value) not in self._known:
            self._known[id(value)] = (self._new(value), value)
        return self._known[id(value)][0]

    def _new(self, value: object) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            name = str(len(self.arrays))
            self.arrays[name] = value
            return {"array": name}
        written = StoredTask.of(value) if isinstance(value, Task) else value
        found = {field.name: self.write(getattr(written, field.name)) for field in _fields(written)}
        self.objects.append({"class": _name_of(type(written)), "fields": found})
        return {"object": len(self.objects) - 1}


def _fields(value: object) -> list["Attribute[Any]"]:
    kind = type(value)
    if not has(kind):
        raise ForeignClassError(f"{kind.__qualname__} is not a stock class")
    return [field for field in fields(kind) if field.init]


def _name_of(kind: type) -> str:
    module = kind.__module__.removeprefix("fltheory.")
    name = f"{module}:{kind.__name__}"
    if module == kind.__module__ or _class_of(name) is not kind:
        raise ForeignClassError(f"{kind.__qualname__} is not a stock class")
    return name


def _class_of(name: str) -> type | None:
    """The class of this package that a name stands for, None if there is no such."""
    module, _, kind = name.partition(":")
    if not _NAME.fullmatch(name) or not any(f"{module}.".startswith(f"{room}.") for room in _ROOMS):
        return None
    try:
        found = getattr(import_module(f"fltheory.{module}"), kind, None)
    except ModuleNotFoundError:
        return None
    own = isinstance(found, type) and has(found) and found.__module__ == f"fltheory.{module}"
    return found if own else None


def is_stock(value: object) -> bool:
    """Whether a file can bring it along."""
    try:
        Writer().write(value)
    except ForeignClassError:
        return False
    return True


@frozen(eq=False)
class Reader:
    """What a ``Writer`` has written; arrays are read-only, and sequences become tuples."""

    made: list[object]
    arrays: Mapping[str, Array]
    given: Mapping[str, object]

    @classmethod
    def of(
        cls, objects: Sequence[Any], arrays: Mapping[str, Array], given: Mapping[str, object] | None = None
    ) -> "Reader":
        """Make all objects.

        Raises
        ------
        CheckpointError
            If one is of a class that is not this package's own, or does not fit its class.
        """
        reader = cls([], {name: sealed(array) for name, array in arrays.items()}, given or {})
        for entry in objects:
            reader.made.append(reader._object(entry))
        return reader

    def read(self, data: Any) -> Any:
        """The value that this stands for."""
        if isinstance(data, list):
            return tuple(self.read(entry) for entry in data)
        if not isinstance(data, dict):
            return data
        if "array" in data:
            return self.arrays[data["array"]]
        return self.given[data["given"]] if "given" in data else self.made[data["object"]]

    def _object(self, entry: Mapping[str, Any]) -> object:
        kind = _class_of(entry["class"])
        if kind is None:
            raise CheckpointError(f"file: names the class {entry['class']!r:.60}, which is not a stock class")
        alias = {field.name: field.alias for field in fields(kind)}
        values = {alias[name]: self.read(value) for name, value in entry["fields"].items()}
        try:  # Alternate takes its samplers one by one
            return kind(*values["samplers"]) if set(values) == {"samplers"} else kind(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"file: {kind.__name__} cannot be made of what it says ({error})"
            ) from error
