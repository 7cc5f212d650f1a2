"""What a run is: everything that decides the numbers drawn but where the chains start."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.model import Model, describe_model
from fltheory.network.chains import Chains, Moment
from fltheory.network.group import Group
from fltheory.network.moves.base import Moves
from fltheory.network.record import Recorder
from fltheory.network.reduction import Reduction
from fltheory.network.target import IntegratedTarget, NetworkTarget, WeightTarget
from fltheory.numerics.validation import Array, fingerprint
from fltheory.sampler.base import Sampler

COORDINATES: Mapping[str, tuple[Callable[[Model], Reduction], type[NetworkTarget]]] = {
    "auto": (Reduction.of, IntegratedTarget),
    "integrated": (Reduction.of, IntegratedTarget),
    "preactivations": (Reduction.of, WeightTarget),
    "hidden weights": (Reduction.none, IntegratedTarget),
    "weights": (Reduction.none, WeightTarget),
}
_NUMBERS = (
    "n_chains",
    "seed",
    "coordinates",
    "device",
    "dtype",
    "thin",
    "keep",
    "chains_per_batch",
    "softest",
)
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@frozen(eq=False)
class Plan:
    """The settings of a run, checked. Attributes are the arguments of ``sample_network``.

    Attributes
    ----------
    targets
        Y as sampled: (P, m), or (C, P, m) for one set of targets a chain.
    moves, softest
        What the target knows of single neurons, and T of its softest version.
    reduction
        The network as the chains know it; that of the coordinates unless given.
    """

    model: Model
    sampler: Sampler
    targets: Array
    n_chains: int
    seed: int
    coordinates: str
    device: str
    dtype: str
    thin: int
    keep: str
    chains_per_batch: int
    moves: Moves | None = None
    softest: float | None = None
    reduction: Reduction = field()

    @reduction.default
    def _reduction_of_coordinates(self) -> Reduction:
        return COORDINATES[self.coordinates][0](self.model)

    @cached_property
    def target(self) -> NetworkTarget:
        """What all chains sample."""
        kind = COORDINATES[self.coordinates][1]
        model, dtype = self.reduction.model, DTYPES[self.dtype]
        return kind(
            model,
            targets=self.targets,
            device=self.device,
            dtype=dtype,
            softest=self.softest,
            moves=self.moves,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """One a chain, for the part of the first layer that the training inputs do not see."""
        return tuple(np.random.SeedSequence(self.seed).generate_state(self.n_chains).tolist())

    @cached_property
    def recorder(self) -> Recorder:
        """What is kept of all chains."""
        task = self.model.task
        return Recorder(task, self.reduction, self.targets, self.device, self.seeds, self.keep)

    @property
    def settings(self) -> dict[str, Any]:
        """What it was asked for, without the sampler, in words and numbers."""
        asked = {name: value for name, value in self.numbers.items() if name != "softest"}
        return {**describe_model(self.model), **asked, "targets": fingerprint(self.targets)}

    @property
    def numbers(self) -> dict[str, Any]:
        """Those that are numbers or names."""
        return {name: getattr(self, name) for name in _NUMBERS}

    # Batches ------------------------------------------------------------------------------------

    def groups(
        self,
        start: int | Tensor | Sequence[Moment],
        n_draws: int,
        n_warmup: int = 0,
        folder: Path | None = None,
    ) -> list[Group]:
        """The batches of chains, from positions (C, dimension), the prior or a moment of each batch."""
        parts, found = self._parts, []
        for k, part in enumerate(parts):
            begin = _begin(start, k, part)
            found.append(
                Group(
                    Chains(evolve(self.target, targets=self._targets_of(part)), self.sampler, self.thin),
                    evolve(self.recorder, targets=self._targets_of(part), seeds=self.seeds[part]),
                    begin if isinstance(begin, Moment) else (begin, n_warmup, self._seeds_of_batches[k]),
                    n_draws,
                    None if folder is None else folder / f"batch-{k:05}",
                )
            )
        return found

    @property
    def _parts(self) -> list[slice]:
        """The chains of each batch; the last may be smaller."""
        n, size = self.n_chains, self.chains_per_batch
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]

    @cached_property
    def _seeds_of_batches(self) -> list[int]:
        """That of the run for a single batch, else one for each."""
        children = np.random.SeedSequence(self.seed).spawn(len(self._parts))
        own = [int(child.generate_state(1, np.uint64)[0] >> 1) for child in children]
        return own if len(own) > 1 else [self.seed]

    def _targets_of(self, chains: slice) -> Array:
        return self.targets if self.targets.ndim == 2 else self.targets[chains]

    # Memory -------------------------------------------------------------------------------------

    def check_memory(self, n_draws: int) -> None:
        """Refuse before anything is allocated what would take more than half of the machine's memory."""
        needed, limit = self.n_chains * n_draws * self.recorder.bytes_per_draw(), memory_of_machine() // 2
        if needed > limit:
            advice = [*self._leaner(limit // (self.n_chains * n_draws)), "with thin fewer draws do"]
            raise MemoryError(
                f"n_draws: expected draws that take at most {limit / 2**30:.3g} GiB, half of this machine's "
                f"memory, got {n_draws} of {self.n_chains} chains, {min(needed, 2**99) / 2**30:.3g} GiB with "
                f"keep={self.keep!r} ({'; '.join(advice)})"
            )

    def _leaner(self, bytes_per_draw: int) -> Iterator[str]:
        """What to keep, in words, so that a draw takes no more than that."""
        for keep, words in (("statistics", "no networks"), ("readouts", "only their readouts")):
            if evolve(self.recorder, keep=keep).bytes_per_draw() <= bytes_per_draw:
                yield f"keep={keep!r} keeps {words}"


def _begin(start: int | Tensor | Sequence[Moment], k: int, part: slice) -> int | Tensor | Moment:
    """The start of batch k, of these chains."""
    if isinstance(start, int):
        return int(part.stop - part.start)
    return start[part] if isinstance(start, Tensor) else start[k]


def memory_of_machine() -> int:
    """In bytes; 32 GiB where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**35
