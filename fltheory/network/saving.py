"""Samples in one file, without any code: arrays in the safetensors format, the rest as JSON in its header."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from attrs import frozen
from torch import Tensor

from fltheory.errors import CheckpointError
from fltheory.model import Model
from fltheory.network.chains import Moment
from fltheory.network.checkpoint import pack
from fltheory.network.configuration import describe_model
from fltheory.network.draws import Draws
from fltheory.network.plan import Plan
from fltheory.network.samples import Continuation, PosteriorSamples
from fltheory.network.stock import from_data, moves_from_data, moves_to_data, to_data
from fltheory.numerics.files import read_whole, write_whole
from fltheory.numerics.validation import Array, sealed
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC
from fltheory.task import ArrayTask, Task

_FORMAT = 1
_NOT_AS_WRITTEN = (KeyError, TypeError, AttributeError, IndexError, RecursionError)
_NOT_OURS = (safetensors.SafetensorError, ValueError, *_NOT_AS_WRITTEN)
_ROWS, _MEANS, _TASK, _MOMENT, _MOVES = "rows/", "means/", "task/", "moment/", "moves/"
_ARRAYS = ("inputs", "targets", "labels", "test_inputs", "test_targets")
_NUMBERS = ("width", "temperature", "weight_variances", "readout_variance", "is_lazy")


@frozen(eq=False, repr=False)
class StoredTask(ArrayTask):
    """The arrays of a task, with its Gram matrix as it was."""

    stored_gram: Array | None = None

    def gram(self) -> Array:
        return super().gram() if self.stored_gram is None else self.stored_gram

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "StoredTask":
        """From what was written."""
        arrays = {name: sealed(value.numpy()) for name, value in tensors.items()}
        return cls(**{("stored_gram" if name == "gram" else name): a for name, a in arrays.items()})


def save(samples: PosteriorSamples, path: "str | PathLike[str]") -> None:
    """Write samples to one file."""
    model, on = samples.model, samples.continuation
    if on is None:
        raise ValueError("save: expected samples that keep the state of their chains, got none")
    moves, arrays = moves_to_data(on.plan.moves)
    record = {
        "format": _FORMAT,
        "model": {name: getattr(model, name) for name in _NUMBERS},
        "described": describe_model(model),
        "nonlinearity": to_data(model.nonlinearity),
        "sampler": to_data(on.plan.sampler),
        "moves": moves,
        "plan": on.plan.numbers,
        "moments": [moment.numbers for moment in on.moments],
    }
    tensors = dict(_tensors(samples, on.moments))
    tensors |= {_MOVES + name: torch.tensor(array) for name, array in arrays.items()}
    text = json.dumps(record)
    header = {"fltheory": text, "sha256": _digest(text, tensors)}
    write_whole(Path(os.fsdecode(path)), pack(tensors, header))


def _tensors(samples: PosteriorSamples, moments: tuple[Moment, ...]) -> Iterator[tuple[str, Tensor]]:
    """All arrays, by name."""
    task: Task = samples.model.task
    found: dict[str, Any] = {_TASK + name: getattr(task, name) for name in _ARRAYS}
    found[_TASK + "gram"] = task.gram()
    found |= {_ROWS + name: row for name, row in samples.draws.rows.items()}
    found |= {_MEANS + name: mean for name, mean in samples.draws.means.items()}
    found["targets"] = samples.targets
    for name, array in found.items():
        if array is not None:
            yield name, torch.tensor(array)
    for k, moment in enumerate(moments):
        for name, tensor in moment.tensors.items():
            yield f"{_MOMENT}{k}/{name}", tensor.detach().cpu()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """A hash of all that a file says."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@frozen(eq=False)
class SavedFile:
    """A file of samples, whole and checked, from which nothing is run."""

    path: Path
    record: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "SavedFile":
        """Read and check a file.

        Raises
        ------
        CheckpointError
            If it cannot be read, is no file of samples, or damaged.
        """
        content = read_whole(path)
        try:
            tensors = safetensors.torch.load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])["__metadata__"]
            record, expected = json.loads(header["fltheory"]), header["sha256"]
            found_format = record["format"]
        except _NOT_OURS as error:
            raise CheckpointError(f"{path}: not a file of samples, or damaged ({error})") from None
        if _digest(header["fltheory"], tensors) != expected:
            raise CheckpointError(f"{path}: damaged, its content is not what was written")
        if found_format != _FORMAT:
            raise CheckpointError(f"{path}: expected format {_FORMAT}, got {found_format!r:.60}")
        return cls(path, record, tensors)

    def samples(self, model: Model | None, sampler: Sampler | None) -> PosteriorSamples:
        """The samples, of ``model`` and ``sampler`` where these are not stock.

        Raises
        ------
        ValueError
            If the file is of another posterior, or of classes that are not stock and not given.
        CheckpointError
            If the file does not hold what it should.
        """
        try:
            return self._samples(model, sampler)
        except _NOT_AS_WRITTEN as error:
            raise CheckpointError(f"{self.path}: not a file of samples of this version ({error})") from error

    def _samples(self, model: Model | None, sampler: Sampler | None) -> PosteriorSamples:
        model = self._model() if model is None else self._checked(model)
        stock, known = self.record["sampler"], self.record["moves"]
        sampler = sampler if stock is None else from_data(stock)
        moves = moves_from_data(known, self._arrays(_MOVES))
        draws = Draws.of(self._arrays(_ROWS), self._arrays(_MEANS))
        targets = sealed(self.tensors["targets"].numpy())
        plan = Plan(model, HMC() if sampler is None else sampler, targets, moves=moves, **self.record["plan"])
        on = None if sampler is None or known is None else self._continuation(plan)
        return PosteriorSamples(model, plan.reduction, draws, plan.seeds, targets, on)

    def _model(self) -> Model:
        if self.record["nonlinearity"] is None:
            name = self.record["described"]["nonlinearity"]
            raise ValueError(f"posterior: expected the one that was sampled, {name} is not a stock class")
        numbers = dict(self.record["model"])
        variances = tuple(numbers.pop("weight_variances"))
        task, phi = StoredTask.of(self._part(_TASK)), from_data(self.record["nonlinearity"])
        return Model(task=task, nonlinearity=phi, weight_variances=variances, **numbers)

    def _checked(self, model: Model) -> Model:
        found = describe_model(model)
        for name, value in self.record["described"].items():
            if found[name] != value:
                raise ValueError(
                    f"posterior: expected the one that was sampled, with {name} {value!r:.80}, "
                    f"got {found[name]!r:.80}"
                )
        return model

    def _continuation(self, plan: Plan) -> Continuation:
        numbers = self.record["moments"]
        parts = [self._part(f"{_MOMENT}{k}/") for k in range(len(numbers))]
        pairs = zip(parts, numbers, strict=True)
        return Continuation(plan, tuple(Moment.of(t, n, plan.device) for t, n in pairs))

    def _part(self, start: str) -> dict[str, Tensor]:
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}

    def _arrays(self, start: str) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in self._part(start).items()}
