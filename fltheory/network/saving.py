"""Samples as a file, and back."""

from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
from attrs import evolve

from fltheory.model import Model
from fltheory.network.chains import Moment
from fltheory.network.draws import Draws
from fltheory.network.moves.base import Moves
from fltheory.network.plan import Plan
from fltheory.network.reduction import Reduction
from fltheory.network.samples import Continuation, PosteriorSamples
from fltheory.numerics.validation import Array, sealed
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC
from fltheory.storage.archive import Archive
from fltheory.storage.model import archived, opened, writer_for
from fltheory.storage.objects import ForeignClassError, Writer

KIND = "samples"
_ROWS, _MEANS, _MOMENT, _BASIS = "rows/", "means/", "moment/", "basis"


def save(samples: PosteriorSamples, path: "str | PathLike[str]") -> None:
    """Write samples to one file."""
    model, on = samples.model, samples.continuation
    if on is None:
        raise ValueError("save: expected samples that keep the state of their chains, got none")
    writer = writer_for(model)
    record = {
        "sampler": if_stock(writer, on.plan.sampler),
        "moves": if_stock(writer, on.plan.moves),
        "plan": on.plan.numbers,
        "moments": [moment.numbers for moment in on.moments],
    }
    archived(KIND, model, writer, record, dict(_arrays(samples, on.moments))).write(path)


def if_stock(writer: Writer, value: Sampler | Moves | None) -> Any:
    """What stands for it; False for a class of the user's own."""
    try:
        return writer.write(value)
    except ForeignClassError:
        return False


def _arrays(samples: PosteriorSamples, moments: tuple[Moment, ...]) -> Iterator[tuple[str, Array]]:
    """All of draws and chains, by name."""
    yield "targets", samples.targets
    if samples.reduction.basis is not None:
        yield _BASIS, samples.reduction.basis
    for name, row in samples.draws.rows.items():
        yield _ROWS + name, row
    for name, mean in samples.draws.means.items():
        yield _MEANS + name, mean
    for k, moment in enumerate(moments):
        for name, tensor in moment.tensors.items():
            yield f"{_MOMENT}{k}/{name}", tensor.detach().cpu().numpy()


def samples_of(archive: Archive, model: Model | None, sampler: Sampler | None) -> PosteriorSamples:
    """The samples in a file, of ``model`` and ``sampler`` where these are not stock.

    Raises
    ------
    ValueError
        If the file is of another posterior, or of classes that are not stock and not given.
    """
    record = archive.record
    reader, model = opened(archive, model)
    stock, moves = record["sampler"], record["moves"]
    sampler = sampler if stock is False else reader.read(stock)
    draws = Draws.of(archive.part(_ROWS), archive.part(_MEANS))
    targets = sealed(archive.arrays["targets"])
    known = None if moves is False else reader.read(moves)
    plan = Plan(model, HMC() if sampler is None else sampler, targets, moves=known, **record["plan"])
    basis = archive.arrays.get(_BASIS)
    plan = plan if basis is None else evolve(plan, reduction=Reduction.along(model, basis))
    can_go_on = sampler is not None and moves is not False
    return PosteriorSamples(
        model, plan.reduction, draws, plan.seeds, targets, _continuation(archive, plan) if can_go_on else None
    )


def _continuation(archive: Archive, plan: Plan) -> Continuation:
    moments = []
    for k, numbers in enumerate(archive.record["moments"]):
        arrays = archive.part(f"{_MOMENT}{k}/")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        moments.append(Moment.of(tensors, numbers, plan.device))
    return Continuation(plan, tuple(moments))
