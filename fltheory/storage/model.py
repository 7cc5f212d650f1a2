"""Which posterior a file is of, and what of it a file cannot bring along."""

from collections.abc import Mapping
from typing import Any

from fltheory.model import Model, describe_model
from fltheory.numerics.validation import Array
from fltheory.storage.archive import Archive
from fltheory.storage.objects import Reader, Writer, is_stock

_OBJECT = "object/"


def _given_by(model: Model) -> dict[str, object]:
    """What is passed in again where a file is read: a nonlinearity of the user's own."""
    return {} if is_stock(model.nonlinearity) else {"nonlinearity": model.nonlinearity}


def writer_for(model: Model) -> Writer:
    """Writes the objects of an answer for this model."""
    return Writer(_given_by(model))


def archived(
    kind: str, model: Model, writer: Writer, record: Mapping[str, Any], arrays: Mapping[str, Array]
) -> Archive:
    """The file of an answer for this model: a record that refers to what was written, and more arrays."""
    own = {
        "described": describe_model(model),
        "given": list(_given_by(model)),
        "model": writer.write(model),
        "objects": writer.objects,
    }
    objects = {_OBJECT + name: array for name, array in writer.arrays.items()}
    return Archive(kind, {**own, **record}, {**arrays, **objects})


def opened(archive: Archive, model: Model | None) -> tuple[Reader, Model]:
    """What reads the objects of a file, and the model: ``model`` itself if it is given.

    Raises
    ------
    ValueError
        If the file is of another posterior, or of a nonlinearity that is not stock and not given.
    CheckpointError
        If an object is of a class that is not stock.
    """
    record = archive.record
    if model is None and record["given"]:
        name = record["described"]["nonlinearity"]
        raise ValueError(f"posterior: expected the one that was saved, {name} is not a stock class")
    found = {} if model is None else describe_model(model)
    for name, value in record["described"].items() if found else ():
        if found[name] != value:
            wanted, got = f"{name} {value!r:.80}", f"{found[name]!r:.80}"
            raise ValueError(f"posterior: expected the one that was saved, with {wanted}, got {got}")
    given = {} if model is None else _given_by(model)
    reader = Reader.of(record["objects"], archive.part(_OBJECT), given)
    return reader, reader.read(record["model"]) if model is None else model
