"""Running groups of chains: in turn in this process, or in processes of their own."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field

from fltheory.errors import InterruptedWarning
from fltheory.network.chains import Moment
from fltheory.network.draws import STATISTICS, TRACES, concatenated
from fltheory.network.group import Group, Outcome, Run, finish
from fltheory.numerics.notices import warn_user
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
    _check_share(groups, n_jobs)
    return _side_by_side(groups, n_jobs, progress)


def _check_share(groups: Sequence[Group], n_jobs: int) -> None:
    """Warn of processes that have nothing to do, where smaller batches would give them something."""
    from joblib import effective_n_jobs

    n_processes = effective_n_jobs(n_jobs) if n_jobs == -1 else n_jobs
    if n_processes > len(groups) and len(groups[0].recorder.seeds) > 1:
        warn_user(
            f"n_jobs: {n_processes} processes for {len(groups)} batch{'es' * (len(groups) > 1)} of chains, "
            f"{n_processes - len(groups)} have nothing to do: with a smaller chains_per_batch, which draws "
            f"other random numbers, there are more batches"
        )


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
    warn_user(f"sampling was interrupted: {n_new} of {n_wanted} draws a chain are kept", InterruptedWarning)


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
    """How the last step of a run went, and its draws so far."""
    assert run.last is not None
    infos = run.last.parts or (run.last,)
    step = _of_step([float(info.acceptance.mean()) for info in infos], float(run.last.step_size.mean()))
    return step | _of_draws({name: row[:, : run.n_rows] for name, row in run.rows.items()})


def _report_of_rows(rows: Mapping[str, Array]) -> dict[str, str]:
    """The same of draws (C, D, ...) from another process; nothing of a warm-up."""
    if not rows:
        return {}
    last = {name: rows[STATISTICS + name][:, -1] for name in ("acceptance", "part_acceptance", "step_size")}
    parts = last["part_acceptance"].mean(0).tolist() or [float(last["acceptance"].mean())]
    return _of_step(parts, float(last["step_size"].mean())) | _of_draws(rows)


def _of_step(acceptance: Sequence[float], step_size: float) -> dict[str, str]:
    """Acceptance (of each part of a composed sampler) and step size."""
    found = {"acceptance": "/".join(f"{rate:.2f}" for rate in acceptance)}
    return found | ({"step": f"{step_size:.2g}"} if math.isfinite(step_size) else {})


def _of_draws(rows: Mapping[str, Array]) -> dict[str, str]:
    """Divergences, and the training error of the last draw; nothing where there is none."""
    error, divergences = rows.get(TRACES + "training_error"), rows.get(STATISTICS + "n_divergences")
    if error is None or divergences is None or error.shape[1] == 0:
        return {}
    return {"divergences": f"{divergences.sum():.0f}", "error": f"{error[:, -1].mean():.2g}"}


def _side_by_side(groups: Sequence[Group], n_jobs: int, progress: bool | None) -> list[Outcome]:
    """In rounds, after each of which all have as many draws: an interruption loses no more than the last.

    Where the groups save themselves there is one round: what was interrupted goes on from there.
    """
    first, last = groups[0].first, groups[0].n_draws
    saves = groups[0].folder is not None
    parts, done, size = list[list[Outcome]](), first, 1
    with progress_bar(len(groups) * (last - first), "draws", progress) as bar:

        def finished(outcome: Outcome) -> None:
            bar.update(stop - done)
            bar.set_postfix(_report_of_rows(outcome.rows))

        if not saves:
            parts.append(_round(groups, first, n_jobs, lambda outcome: None))
        while done < last:
            stop, began = last if saves else min(done + size, last), time.monotonic()
            going = (
                [evolve(g, start=o.moment) for g, o in zip(groups, parts[-1], strict=True)]
                if parts
                else groups
            )
            try:
                parts.append(_round(going, stop, n_jobs, finished))
            except KeyboardInterrupt:
                if done == first:
                    raise
                _warn(done - first, last - first)
                break
            done = stop
            size *= 2 if time.monotonic() - began < _SECONDS_A_ROUND else 1
    return [_joined(rounds) for rounds in zip(*parts, strict=True)]


def _round(
    groups: Sequence[Group], stop: int, n_jobs: int, finished: Callable[[Outcome], None]
) -> list[Outcome]:
    """All groups up to a number of draws, each in a process; ``finished`` is called with each outcome."""
    from joblib import Parallel, delayed

    tasks = (delayed(_numbered)(i, evolve(group, n_draws=stop)) for i, group in enumerate(groups))
    results: Iterator[tuple[int, Outcome]] = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    found: dict[int, Outcome] = {}
    for i, outcome in results:
        found[i] = outcome
        finished(outcome)
    return [found[i] for i in range(len(groups))]


def _numbered(i: int, group: Group) -> tuple[int, Outcome]:
    return i, finish(group)


def _joined(rounds: Sequence[Outcome]) -> Outcome:
    """The outcomes of one group, one round after another; the warm-up has no rows."""
    return Outcome(concatenated([part.rows for part in rounds if part.rows], axis=1), rounds[-1].moment)
