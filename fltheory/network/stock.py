"""Stock nonlinearities and samplers as plain data and back: only classes listed here are ever made."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from attrs import asdict, fields, has
from numpy.typing import NDArray

from fltheory.errors import CheckpointError
from fltheory.network.moves.base import Moves

_NONLINEARITIES = ("Linear", "Sigmoid", "Erf", "Tanh", "ReLU", "LeakyReLU", "Softplus", "GELU")
_HOMES: Mapping[str, str] = {
    **dict.fromkeys(_NONLINEARITIES, "nonlinearity"),
    **dict.fromkeys(("HMC", "MALA"), "sampler.hmc"),
    "NUTS": "sampler.nuts",
    "Langevin": "sampler.langevin",
    "EllipticalSlice": "sampler.elliptical",
    "BlockIndependence": "sampler.blocks",
    "Alternate": "sampler.alternate",
    "Tempering": "sampler.tempering",
}
_MOVES: Mapping[str, str] = {"CodeMoves": "network.moves.codes", "RotationMoves": "network.moves.rotations"}


def to_data(value: object) -> Any:
    """Plain data: numbers as they are, stock objects by name and fields; None for what is not stock."""
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, tuple):
        entries = [to_data(entry) for entry in value]
        return None if None in entries else {"entries": entries}
    kind = type(value)
    if _HOMES.get(kind.__name__) is None or kind is not _stock(kind.__name__) or not has(kind):
        return None
    found = {f.name: to_data(getattr(value, f.name)) for f in fields(kind)}
    return None if None in found.values() else {"class": kind.__name__, "fields": found}


def from_data(data: Any) -> Any:
    """``to_data`` inverted.

    Raises
    ------
    CheckpointError
        If the data name a class that is not stock.
    """
    if "value" in data:
        return data["value"]
    if "entries" in data:
        return tuple(from_data(entry) for entry in data["entries"])
    if data["class"] not in _HOMES:
        raise CheckpointError(f"file: names the class {data['class']!r:.60}, which is not a stock class")
    values = {name.lstrip("_"): from_data(entry) for name, entry in data["fields"].items()}
    kind = _stock(data["class"])
    return kind(*values["samplers"]) if set(values) == {"samplers"} else kind(**values)


def moves_to_data(moves: Moves | None) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The class and the numbers of moves, and their arrays; None for what is not stock, {} for none."""
    if moves is None:
        return {}, {}
    name = type(moves).__name__
    if name not in _MOVES or type(moves) is not _stock(name):
        return None, {}
    values = asdict(moves, recurse=False)
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    numbers = {key: value for key, value in values.items() if key not in arrays}
    return {"class": name, "numbers": numbers}, arrays


def moves_from_data(data: Any, arrays: Mapping[str, NDArray[Any]]) -> Moves | None:
    """``moves_to_data`` inverted.

    Raises
    ------
    CheckpointError
        If the data name a class that is not stock.
    """
    if not data:
        return None
    if data["class"] not in _MOVES:
        raise CheckpointError(f"file: names the class {data['class']!r:.60}, which is not a stock class")
    moves: Moves = _stock(data["class"])(**arrays, **data["numbers"])
    return moves


def _stock(name: str) -> Any:
    return getattr(import_module(f"fltheory.{({**_HOMES, **_MOVES})[name]}"), name, None)
