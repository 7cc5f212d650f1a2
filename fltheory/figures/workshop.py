"""Where cases become networks and theories, each computed once and networks saved on the way."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, field, frozen

from fltheory.coding import code_fractions
from fltheory.errors import ConvergenceError
from fltheory.figures.cases import Case
from fltheory.meanfield.solution import MeanFieldSolution

if TYPE_CHECKING:  # torch is imported where networks are sampled
    from fltheory.network.samples import PosteriorSamples

_Answer = TypeVar("_Answer")

_FRICTION, _TIMES, _INTERVAL = 1.0, 40, 1.2  # of Langevin dynamics: draws, and time between them


@frozen
class Workshop:
    """Where cases become networks and theories.

    Attributes
    ----------
    folder
        Where networks are saved on the way; None: nowhere.
    is_quick
        Whether small versions are computed.
    seed
        Of everything random.
    progress
        Whether bars are shown; None: on a terminal.
    report
        Called with a line on each step.
    """

    folder: Path | None = None
    is_quick: bool = False
    seed: int = 0
    progress: bool | None = None
    report: Callable[[str], object] = str
    _known: dict[str, Any] = field(factory=dict, init=False, eq=False)

    def networks(self, case: Case) -> "PosteriorSamples":
        """Networks of a case."""
        case = self._sized(case)
        return self._once(f"{case.name}: networks", lambda: self._sampled(case))

    def _sampled(self, case: Case) -> "PosteriorSamples":
        from fltheory.sampler.hmc import HMC

        start: PosteriorSamples | str = "prior"
        if not case.is_annealed:
            prior = evolve(case.posterior, temperature=math.inf)
            start = prior.sample(
                HMC(), n_draws=1, n_chains=case.n_chains, n_warmup=0, seed=self.seed, progress=False
            )
        return case.posterior.sample(
            None if case.is_guided else HMC(),
            n_draws=case.n_draws,
            n_chains=case.n_chains,
            n_warmup=case.n_warmup,
            start=start,
            seed=self.seed,
            thin=case.thin,
            checkpoint=self._checkpoint(case.name),
            progress=self.progress,
        )

    def trajectory(self, case: Case) -> "PosteriorSamples":
        """Langevin dynamics from the last networks of a case."""
        from fltheory.sampler.langevin import Langevin

        start, name = self.networks(case), self._sized(case).name
        self.report(f"{name}: trajectory")
        return self._sized(case).posterior.sample(
            Langevin(case.time_step, _FRICTION),
            n_draws=6 if self.is_quick else _TIMES,
            n_chains=case.n_chains,
            n_warmup=0,
            start=start,
            seed=self.seed,
            thin=1 if self.is_quick else round(_INTERVAL / case.time_step),
            checkpoint=self._checkpoint(f"{name}-trajectory"),
            progress=self.progress,
        )

    def theory(self, case: Case) -> MeanFieldSolution | None:
        """The theory of a case; None where there is none or it does not converge."""
        if not case.has_theory:
            return None
        return self._once(f"{self._sized(case).name}: theory", lambda: self._solved(case))

    def _solved(self, case: Case) -> MeanFieldSolution | None:
        sized = self._sized(case)
        fractions = code_fractions(self.networks(case)) if sized.is_frozen else None
        try:
            return sized.posterior.solve(code_fractions=fractions, seed=self.seed, progress=self.progress)
        except (ConvergenceError, ValueError) as error:
            self.report(f"{sized.name}: no theory ({' '.join(str(error).split())})")
            return None

    def _once(self, what: str, compute: Callable[[], _Answer]) -> _Answer:
        """What was computed for an earlier figure is not computed again."""
        if what not in self._known:
            self.report(what)
            self._known[what] = compute()
        answer: _Answer = self._known[what]
        return answer

    def _sized(self, case: Case) -> Case:
        return case.quick() if self.is_quick else case

    def _checkpoint(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-seed{self.seed}"
