"""One file of arrays in the safetensors format, with plain data as JSON and a hash of all in its header."""

import hashlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from attrs import frozen

from fltheory.errors import CheckpointError
from fltheory.numerics.files import read_whole, write_whole
from fltheory.numerics.validation import Array

_FORMAT = 2
NOT_AS_WRITTEN = (KeyError, TypeError, AttributeError, IndexError, RecursionError)
_NOT_OURS = (safetensors.SafetensorError, ValueError, *NOT_AS_WRITTEN)


@frozen(eq=False)
class Archive:
    """What a file says.

    Attributes
    ----------
    kind
        What it is of: "samples" or "solution".
    record
        Plain data.
    arrays
        By name.
    """

    kind: str
    record: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def write(self, path: "str | PathLike[str]") -> None:
        """To a file, whole or not at all."""
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        text = json.dumps({"format": _FORMAT, "kind": self.kind, **self.record})
        header = {"fltheory": text, "sha256": digest(text, arrays)}
        write_whole(Path(os.fsdecode(path)), safetensors.numpy.save(arrays, header))

    def part(self, start: str) -> dict[str, Array]:
        """The arrays whose names begin so, by what follows."""
        return {name.removeprefix(start): a for name, a in self.arrays.items() if name.startswith(start)}

    @classmethod
    def read(cls, path: Path) -> "Archive":
        """Read and check a file.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged, or not of this package and version.
        """
        content = read_whole(path)
        try:
            arrays = safetensors.numpy.load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])["__metadata__"]
            record, expected = json.loads(header["fltheory"]), header["sha256"]
            found_format, kind = record["format"], record.get("kind")
        except _NOT_OURS as error:
            raise CheckpointError(
                f"{path}: not a file of samples or of a solution, or damaged ({error})"
            ) from None
        if digest(header["fltheory"], arrays) != expected:
            raise CheckpointError(f"{path}: damaged, its content is not what was written")
        if found_format != _FORMAT:
            raise CheckpointError(f"{path}: expected format {_FORMAT}, got {found_format!r:.60}")
        return cls(kind, record, arrays)


def digest(text: str, arrays: Mapping[str, Array]) -> str:
    """A hash of all that a file says."""
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"\0{name}\0{array.dtype}{arrays[name].shape}\0".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
