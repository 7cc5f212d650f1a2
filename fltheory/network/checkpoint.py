"""Runs on disk: what a batch of chains needs to go on, and the draws it has made.

A folder for each batch holds blocks of draws, which are written once, the state of the chains, and
``state.json``, which names them with their hashes and is replaced last: what it does not name is not there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
from attrs import field, frozen
from torch import Tensor

from fltheory.errors import CheckpointError
from fltheory.network.chains import Moment
from fltheory.numerics.files import hash_of, read_record, read_whole, write_record, write_whole
from fltheory.numerics.validation import Array

_STATE = "state.json"


@frozen(eq=False)
class Store:
    """The folder of one batch of chains."""

    folder: Path
    _blocks: list[dict[str, Any]] = field(factory=list, init=False)

    @property
    def n_draws(self) -> int:
        """Draws that are on disk."""
        return int(self._blocks[-1]["stop"]) if self._blocks else 0

    def save(self, moment: Moment, rows: Mapping[str, Array]) -> None:
        """Write down a moment and the draws since the last one; ``rows`` hold all draws, (C, D, ...)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start, stop = self.n_draws, moment.n_draws
        if stop > start:
            new = {name: np.ascontiguousarray(row[:, start:stop]) for name, row in rows.items()}
            block = self._write(f"draws-{start:09}-{stop:09}.safetensors", safetensors.numpy.save(new))
            self._blocks.append({**block, "start": start, "stop": stop})
        state = self._write(f"state-{moment.n_warm:09}-{stop:09}.safetensors", pack(moment.tensors))
        record = {"moment": moment.numbers, "state": state, "blocks": self._blocks}
        write_record(self.folder / _STATE, record)
        self._tidy({state["file"], _STATE, *(block["file"] for block in self._blocks)})

    def _write(self, name: str, content: bytes) -> dict[str, Any]:
        write_whole(self.folder / name, content)
        return {"file": name, "sha256": hash_of(content)}

    def _tidy(self, needed: set[str]) -> None:
        for path in self.folder.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def load(self, device: str) -> Moment | None:
        """The last moment that was saved; None if there is none.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged.
        """
        if not (self.folder / _STATE).exists():
            return None
        record = read_record(self.folder / _STATE)
        try:
            moment = Moment.of(unpack(self._read(record["state"])), record["moment"], device)
            self._blocks[:] = record["blocks"]
        except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{self.folder}: not a checkpoint of this version ({error})") from error
        return moment

    def blocks(self) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Which draws, and their rows, for each block on disk.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged.
        """
        for block in self._blocks:
            yield slice(block["start"], block["stop"]), safetensors.numpy.load(self._read(block))

    def _read(self, entry: Mapping[str, Any]) -> bytes:
        return read_whole(self.folder / Path(entry["file"]).name, entry["sha256"])


def pack(tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> bytes:
    """Named tensors as the bytes of a safetensors file, with words in its header."""
    copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    return safetensors.torch.save(copies, header)


def unpack(content: bytes) -> dict[str, Tensor]:
    """``pack`` inverted, on the CPU."""
    return dict(safetensors.torch.load(content))
