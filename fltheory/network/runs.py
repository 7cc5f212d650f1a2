"""Running groups of chains: in turn in this process, or in processes of their own."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from fltheory.errors import InterruptedWarning
from fltheory.network.chains import Moment
from fltheory.network.draws import STATISTICS, TRACES, concatenated
from fltheory.network.group import Group, Outcome, Run, finish
from fltheory.numerics.progress import progress_bar
from fltheory.numerics.validation import Array, check_integer

_SECONDS_BETWEEN_REPORTS = 0.5


def run_groups(groups: Sequence[Group], n_jobs: int, progress: bool | None) -> list[Outcome]:
    """What comes of each group, in their order. It does not depend on ``n_jobs``.

    With ``n_jobs`` = 1 a ``KeyboardInterrupt`` ends the run with the draws that all chains have finished by
    then and an ``InterruptedWarning``; without any draw, or from other processes, it passes through. What is
    to be saved is saved first.
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
    n_wanted = runs[0].group.n_draws - runs[0].first
    message = f"sampling was interrupted: {n_new} of {n_wanted} draws a chain are kept"
    warnings.warn(message, InterruptedWarning, stacklevel=2)
    return [_known(outcome) for outcome in outcomes]


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
    from joblib import Parallel, delayed

    tasks = (delayed(_numbered)(i, group) for i, group in enumerate(groups))
    results: Iterator[tuple[int, Outcome]] = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    found: dict[int, Outcome] = {}
    with progress_bar(len(groups), "batches of chains", progress) as bar:
        for i, outcome in results:
            found[i] = outcome
            bar.update()
    return [found[i] for i in range(len(groups))]


def _numbered(i: int, group: Group) -> tuple[int, Outcome]:
    return i, finish(group)
