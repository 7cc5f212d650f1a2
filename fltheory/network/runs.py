"""Running groups of chains: in turn in this process, or in processes of their own."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import define, evolve, field

from fltheory.errors import InterruptedWarning
from fltheory.network.chains import Moment
from fltheory.network.draws import STATISTICS, TRACES, concatenated
from fltheory.network.group import Group, Outcome, Run, finish
from fltheory.numerics.progress import progress_bar
from fltheory.numerics.validation import Array, check_integer

_SECONDS_BETWEEN_REPORTS = 0.5
_SECONDS_A_ROUND = 10.0  # of processes, at least, between the draws that an interruption cannot take back


def run_groups(groups: Sequence[Group], n_jobs: int, progress: bool | None) -> list[Outcome]:
    """What comes of each group, in their order. It does not depend on ``n_jobs``.

    A ``KeyboardInterrupt`` ends the run with the draws that all chains have finished by then and an
    ``InterruptedWarning``. Without any draw it passes through, and so it does from other processes that
    save their run. What is to be saved is saved first.
    """
    if n_jobs == 1:
        return _in_turn([Run.of(group) for group in groups], progress)
    return _side_by_side(groups, n_jobs, progress)


def gathered(outcomes: Sequence[Outcome]) -> tuple[dict[str, Array], dict[str, Array], tuple[Moment, ...]]:
    """Rows and averages of the chains of all groups, and where each group ended."""
    means = [{name: mean.cpu().numpy() for name, mean in o.moment.means.items()} for o in outcomes]
    rows = concatenated([o.rows for o in outcomes], axis=0)
    return rows, concatenated(means, axis=0), tuple(o.moment for o in outcomes)


def check_jobs(name: str, value: object) -> int:
    """How many processes: a positive number, or -1 for all cores."""
    return -1 if isinstance(value, int) and value == -1 else check_integer(name, value)


def _in_turn(runs: Sequence[Run], progress: bool | None) -> list[Outcome]:
    """The run that is furthest behind makes the next step, so that all have as many draws."""
    try:
        with _Bar.of(runs, progress) as bar:
            while behind := [run for run in runs if not run.is_finished]:
                run = min(behind, key=lambda run: run.n_done)
                run.advance()
                bar.update(run)
    except KeyboardInterrupt:
        for run in runs:
            run.save()
        return _interrupted(runs)
    return [_known(run.outcome(run.group.n_draws)) for run in runs]


def _interrupted(runs: Sequence[Run]) -> list[Outcome]:
    """What all have finished, with a warning; or the interruption itself."""
    n_done = min(run.moment.n_draws for run in runs)
    outcomes = [run.outcome(n_done) for run in runs]
    n_new = n_done - max(run.first for run in runs)
    if n_new <= 0 or None in outcomes:
        raise KeyboardInterrupt
    _warn(n_new, runs[0].group.n_draws - runs[0].first)
    return [_known(outcome) for outcome in outcomes]


def _warn(n_new: int, n_wanted: int) -> None:
    message = f"sampling was interrupted: {n_new} of {n_wanted} draws a chain are kept"
    warnings.warn(message, InterruptedWarning, stacklevel=2)


def _known(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return outcome


@define
class _Bar:
    """Progress of all runs, and how the one that moved last fares."""

    bar: Any
    reported: float = field(factory=time.monotonic)

    @classmethod
    def of(cls, runs: Sequence[Run], progress: bool | None) -> "_Bar":
        total = sum(run.n_warmup + run.group.n_draws - run.first for run in runs)
        done = sum(run.n_done - run.first for run in runs)
        what = "draws" if all(run.is_warm for run in runs) else "warm-up"
        return cls(progress_bar(total, what, progress, initial=done))

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, run: Run) -> None:
        """One step more, by this run."""
        self.bar.update()
        if run.moment.n_draws == run.first + 1:
            self.bar.set_description("draws")
        if not self.bar.disable and time.monotonic() > self.reported + _SECONDS_BETWEEN_REPORTS:
            self.reported = time.monotonic()
            self.bar.set_postfix(_report(run), refresh=False)


def _report(run: Run) -> dict[str, str]:
    """Acceptance (of each part of a composed sampler), step size, divergences and training error."""
    assert run.last is not None
    infos = run.last.parts or (run.last,)
    found = {"acceptance": "/".join(f"{float(info.acceptance.mean()):.2f}" for info in infos)}
    step_size = float(run.last.step_size.mean())
    if math.isfinite(step_size):
        found["step"] = f"{step_size:.2g}"
    error, divergences = run.rows.get(TRACES + "training_error"), run.rows.get(STATISTICS + "n_divergences")
    if error is not None and divergences is not None and run.n_rows:
        found["divergences"] = f"{divergences[:, : run.n_rows].sum():.0f}"
        found["error"] = f"{error[:, run.n_rows - 1].mean():.2g}"
    return found


def _side_by_side(groups: Sequence[Group], n_jobs: int, progress: bool | None) -> list[Outcome]:
    """In rounds, after each of which all have as many draws: an interruption loses no more than the last.

    Where the groups save themselves there is one round: what was interrupted goes on from there.
    """
    first, last = groups[0].first, groups[0].n_draws
    saves = groups[0].folder is not None
    parts, done, size = list[list[Outcome]](), first, 1
    with progress_bar(len(groups) * (last - first), "draws", progress) as bar:
        if not saves:
            parts.append(_round(groups, first, n_jobs, lambda: None))
        while done < last:
            stop, began = last if saves else min(done + size, last), time.monotonic()
            going = (
                [evolve(g, start=o.moment) for g, o in zip(groups, parts[-1], strict=True)]
                if parts
                else groups
            )
            try:
                parts.append(_round(going, stop, n_jobs, partial(bar.update, stop - done)))
            except KeyboardInterrupt:
                if done == first:
                    raise
                _warn(done - first, last - first)
                break
            done = stop
            size *= 2 if time.monotonic() - began < _SECONDS_A_ROUND else 1
    return [_joined(rounds) for rounds in zip(*parts, strict=True)]


def _round(groups: Sequence[Group], stop: int, n_jobs: int, finished: Callable[[], None]) -> list[Outcome]:
    """All groups up to a number of draws, each in a process; ``finished`` is called after each."""
    from joblib import Parallel, delayed

    tasks = (delayed(_numbered)(i, evolve(group, n_draws=stop)) for i, group in enumerate(groups))
    results: Iterator[tuple[int, Outcome]] = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    found: dict[int, Outcome] = {}
    for i, outcome in results:
        found[i] = outcome
        finished()
    return [found[i] for i in range(len(groups))]


def _numbered(i: int, group: Group) -> tuple[int, Outcome]:
    return i, finish(group)


def _joined(rounds: Sequence[Outcome]) -> Outcome:
    """The outcomes of one group, one round after another; the warm-up has no rows."""
    return Outcome(concatenated([part.rows for part in rounds if part.rows], axis=1), rounds[-1].moment)
