"""A batch of chains from its start to its last draw, saved on the way."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from fltheory.errors import CheckpointError
from fltheory.network.chains import Chains, Moment, statistics
from fltheory.network.checkpoint import Store
from fltheory.network.draws import STATISTICS
from fltheory.network.record import Recorder
from fltheory.network.target import NetworkTarget
from fltheory.numerics.validation import Array
from fltheory.sampler.base import Info

SAVE_EVERY = 60.0  # seconds


@frozen(eq=False)
class Group:
    """What a batch of chains is to do. It can be sent to another process.

    Attributes
    ----------
    chains, recorder
        How to move, and what to keep.
    start
        A moment, or what ``Chains.begin`` begins with: positions or a number of chains, the length
        of the warm-up, and a seed.
    n_draws
        Draws since the beginning, where it ends.
    folder
        Where to save it; None: nowhere.
    """

    chains: Chains
    recorder: Recorder
    start: Moment | tuple[int | Tensor, int, int]
    n_draws: int
    folder: Path | None = None

    @property
    def first(self) -> int:
        """Draws before its start."""
        return self.start.n_draws if isinstance(self.start, Moment) else 0

    def begin(self) -> Moment:
        """Before the first step."""
        return self.start if isinstance(self.start, Moment) else self.chains.begin(*self.start)


@frozen(eq=False)
class Outcome:
    """Rows (C, D, ...) by full names, of the draws since the start of the group, and where it ended."""

    rows: dict[str, Array]
    moment: Moment


@define(eq=False)
class Run:
    """A group on its way. Whatever interrupts it, ``moment`` is that after its last whole step.

    Attributes
    ----------
    group
        What it does.
    moment, before
        Now, and one step earlier.
    last
        What the sampler said of the last step, of a draw the last of its steps.
    rows, first
        (C, D, ...) by full names, of the draws from number ``first`` on.
    """

    group: Group
    moment: Moment
    before: Moment
    last: Info | None
    rows: dict[str, Array]
    first: int
    _store: Store | None
    _saved: float
    _warm_target: tuple[float, NetworkTarget] | None = field(default=None)

    @classmethod
    def of(cls, group: Group) -> "Run":
        """At the start, or where it was saved."""
        store = None if group.folder is None else Store(group.folder)
        saved = None if store is None else store.load(group.chains.target.device)
        moment = group.begin() if saved is None else saved
        first = 0 if saved is not None else moment.n_draws
        if moment.n_draws > group.n_draws:
            raise CheckpointError(
                f"checkpoint: {group.folder} holds {moment.n_draws} draws a chain already, more than "
                f"n_draws = {group.n_draws}"
            )
        run = cls(group, moment, moment, None, {}, first, store, time.monotonic())
        for draws, rows in () if store is None else store.blocks():
            run._place(rows, draws)
        return run

    @property
    def n_warmup(self) -> int:
        """Steps of warm-up in all."""
        return sum(n for _, n in self.moment.schedule)

    @property
    def n_rows(self) -> int:
        """How many draws there are in ``rows``."""
        return self.moment.n_draws - self.first

    @property
    def is_warm(self) -> bool:
        """Whether it draws."""
        return self.moment.n_warm == self.n_warmup

    @property
    def n_done(self) -> int:
        """Steps of warm-up and draws so far."""
        return self.moment.n_warm + self.moment.n_draws

    @property
    def is_finished(self) -> bool:
        """Whether the last draw is made."""
        return self.is_warm and self.moment.n_draws == self.group.n_draws

    def advance(self) -> None:
        """One step of warm-up, or one draw."""
        moment = self._drawn() if self.is_warm else self._warmed()
        self.before, self.moment = self.moment, moment
        is_turn = self.is_finished or (moment.n_draws == 0 and self.is_warm)
        if is_turn or time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write down where it is, if it is to be saved."""
        if self._store is not None:
            self._store.save(self.moment, self.rows)
        self._saved = time.monotonic()

    def outcome(self, n_draws: int) -> Outcome | None:
        """What there is of the first draws; None if the moment after them is gone."""
        for moment in (self.moment, self.before):
            if moment.n_draws == n_draws:
                return Outcome(
                    {name: row[:, : n_draws - self.first] for name, row in self.rows.items()}, moment
                )
        return None

    def _warmed(self) -> Moment:
        temperature, _ = self.moment.temperature()
        if self._warm_target is None or self._warm_target[0] != temperature:
            self._warm_target = temperature, self.group.chains.target.at(temperature)
        moment, self.last = self.group.chains.warmed(self.moment, self._warm_target[1])
        return moment

    def _drawn(self) -> Moment:
        """After one more draw: its rows are in place, but do not count before the moment is set."""
        chains, moment = self.group.chains, self.moment
        generator = moment.generator()
        state, infos = chains.moved(moment.state, generator)
        weights = chains.target.weights(state.position)[:-1]
        readouts = chains.target.draw_readouts(state.position, generator)
        found, means = self.group.recorder.rows(weights, readouts, moment.n_draws, moment.means)
        found |= {STATISTICS + name: value for name, value in statistics(state, infos).items()}
        d = moment.n_draws - self.first
        self._place({name: value.cpu().numpy()[:, None] for name, value in found.items()}, slice(d, d + 1))
        self.last = infos[-1]
        return evolve(
            moment,
            state=state,
            generator_state=generator.get_state(),
            n_draws=moment.n_draws + 1,
            means=means,
        )

    def _place(self, rows: Mapping[str, Array], draws: slice) -> None:
        """Put rows (C, D', ...) where they belong, counted from the first draw that is kept here."""
        for name, row in rows.items():
            if name not in self.rows:
                n_draws = self.group.n_draws - self.first
                self.rows[name] = np.empty((len(row), n_draws, *row.shape[2:]))
            self.rows[name][:, draws] = row


def finish(group: Group) -> Outcome:
    """Run a group in a process of its own, on one thread, to its last draw."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = Run.of(group)
    try:
        while not run.is_finished:
            run.advance()
    except KeyboardInterrupt:
        run.save()
        raise
    finally:
        torch.set_num_threads(n_threads)
    outcome = run.outcome(group.n_draws)
    assert outcome is not None
    return outcome
