"""Files that are whole or not there: written aside, flushed to the disk, then put in place."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from fltheory.errors import CheckpointError

_HASH = "sha256"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, at any time, finds all of the old one or all of the new one."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    if os.name == "posix":  # the entry in the folder too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def hash_of(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_whole(path: Path, expected_hash: str | None = None) -> bytes:
    """The content of a file.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if expected_hash is not None and hash_of(content) != expected_hash:
        raise CheckpointError(f"{path}: damaged, its content is not what was written")
    return content


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write plain data as JSON that carries its own hash."""
    write_whole(path, json.dumps({**record, _HASH: _record_hash(record)}, indent=1).encode())


def read_record(path: Path) -> dict[str, Any]:
    """Plain data, as written by ``write_record``.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is not what was written.
    """
    try:
        record = json.loads(read_whole(path))
        is_whole = record.pop(_HASH) == _record_hash(record)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise CheckpointError(f"{path}: damaged, its content is not what was written")
    return dict(record)


def _record_hash(record: dict[str, Any]) -> str:
    return hash_of(json.dumps(record, sort_keys=True).encode())
