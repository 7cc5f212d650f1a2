"""The folder of a run: what was asked for is compared, and what the run settled as it began is read back.

Theory and linear algebra differ in their last digits from one machine to another. So what a run takes from
them is decided once, as it begins, and kept: it goes on as it began, without solving the theory again.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fltheory.errors import CheckpointError
from fltheory.model import plain_repr
from fltheory.network.moves.base import Advice
from fltheory.network.plan import Plan
from fltheory.network.reduction import Reduction
from fltheory.network.saving import if_stock
from fltheory.numerics.files import read_record, write_record
from fltheory.numerics.validation import fingerprint
from fltheory.sampler.base import Sampler
from fltheory.storage.archive import Archive
from fltheory.storage.objects import Reader, Writer

_FORMAT = 2
_CONFIGURATION, _SETTLED = "configuration.json", "settled.safetensors"
_KIND, _OBJECT, _BASIS, _BEGIN = "run", "object/", "basis", "begin"


@frozen(eq=False)
class Settled:
    """What the arguments of a run leave open.

    Attributes
    ----------
    advice
        How to sample.
    reduction
        The network as the chains know it.
    begin
        The number of chains to start from the prior, or positions (C, dimension).
    """

    advice: Advice
    reduction: Reduction
    begin: int | Tensor


@frozen(eq=False)
class Opening:
    """How a run begins.

    Attributes
    ----------
    plan
        As far as its arguments go.
    sampler
        The one asked for; None: it is chosen.
    advise, begin
        What finds the rest, as in ``Settled``.
    """

    plan: Plan
    sampler: Sampler | None
    advise: Callable[[], Advice]
    begin: Callable[[], int | Tensor]

    def settle(self) -> Settled:
        """For the first time."""
        return Settled(self.advise(), self.plan.reduction, self.begin())

    def at(self, path: Path, start: str, n_warmup: int) -> Settled:
        """In a folder, which is made, or seen to be that of the same run.

        Moves, or a sampler that was chosen, of classes that a file cannot bring along are asked for again,
        and must be the same.

        Parameters
        ----------
        start
            Where it starts, in words.

        Raises
        ------
        CheckpointError
            If it is of another run, naming what differs, or damaged, or if the folder holds something else.
        """
        more = {"n_warmup": n_warmup, "start": start, "torch": str(torch.__version__)}
        sampler = "chosen" if self.sampler is None else plain_repr(self.sampler)
        asked = {"format": _FORMAT, **self.plan.settings, "sampler": sampler, **more}
        wanted = json.loads(json.dumps(asked))
        if (path / _CONFIGURATION).exists():
            _compare(path, wanted)
            return self._read(path)
        _check_free(path)
        settled = self.settle()
        path.mkdir(parents=True, exist_ok=True)
        self._write(settled, path / _SETTLED)
        write_record(path / _CONFIGURATION, wanted)  # last: without it there is no run
        return settled

    def _write(self, settled: Settled, file: Path) -> None:
        writer, advice = Writer(), settled.advice
        record = {
            "sampler": None if advice.sampler is self.plan.sampler else if_stock(writer, advice.sampler),
            "moves": if_stock(writer, advice.moves),
            "softest": advice.softest,
            "advice": _hash_of(advice),
        }
        arrays = {_OBJECT + name: array for name, array in writer.arrays.items()}
        if settled.reduction.basis is not None:
            arrays[_BASIS] = settled.reduction.basis
        if isinstance(settled.begin, Tensor):
            arrays[_BEGIN] = settled.begin.cpu().numpy()
        Archive(_KIND, {**record, "objects": writer.objects}, arrays).write(file)

    def _read(self, path: Path) -> Settled:
        archive = Archive.read(path / _SETTLED)
        if archive.kind != _KIND:
            raise CheckpointError(f"{path / _SETTLED}: expected what a run settled, got {archive.kind!r:.60}")
        advice, basis = self._advice_in(archive), archive.arrays.get(_BASIS)
        if _hash_of(advice) != archive.record["advice"]:
            raise CheckpointError(f"checkpoint: {path} holds a run with other moves or another sampler")
        plan, begin = self.plan, archive.arrays.get(_BEGIN)
        return Settled(
            advice,
            plan.reduction if basis is None else Reduction.along(plan.model, basis),
            self.begin() if begin is None else torch.from_numpy(begin.copy()).to(plan.device),
        )

    def _advice_in(self, archive: Archive) -> Advice:
        record = archive.record
        sampler, moves = record["sampler"], record["moves"]
        if sampler is False or moves is False:
            return self.advise()
        reader = Reader.of(record["objects"], archive.part(_OBJECT))
        known = self.plan.sampler if sampler is None else reader.read(sampler)
        return Advice(known, reader.read(moves), record["softest"])


def _hash_of(advice: Advice) -> str:
    moves = None if advice.moves is None else advice.moves.fingerprint
    return fingerprint(plain_repr(advice.sampler), moves, advice.softest)


def _compare(path: Path, wanted: Mapping[str, Any]) -> None:
    found = read_record(path / _CONFIGURATION)
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"checkpoint: {path} holds a run with another {name}: {found.get(name)!r:.80} there, "
                f"{wanted.get(name)!r:.80} here"
            )


def _check_free(path: Path) -> None:
    """Nothing is there but what a run leaves that was stopped before it began."""
    own = path.is_dir() and all(p.name == _SETTLED or p.suffix == ".part" for p in path.iterdir())
    if path.exists() and not own:
        raise CheckpointError(f"checkpoint: expected the folder of a run or none, got {path}")
