"""Exact tests of samplers where parameters and data can be drawn from their joint law.

If theta is drawn from the prior and the data given theta, theta is an exact draw from the posterior
given the data: a chain that starts there is in equilibrium at once, whatever the posterior. Both tests
rank a statistic of theta among those of a chain for the same data; all replicates, each with data of
its own, are one batch of chains.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

from fltheory.numerics.validation import Array, Integers, check_instance, check_integer
from fltheory.sampler.base import Sampler, State, Target

if TYPE_CHECKING:
    from torch import Generator, Tensor

_FALSE_ALARM, _POWER = 1e-3, 0.9  # at which the smallest error to be seen is stated
_ROUNDING = 1e-9  # relative: a proposal was refused, and the statistic computed in another way


@frozen(eq=False)
class Replicates:
    """Independent draws of parameters and data, one a chain.

    Attributes
    ----------
    target
        The posterior: row c knows the data of replicate c.
    position
        The parameters, shape (C, dimension).
    statistics
        Of parameters and data, by name, each (C,).
    """

    target: Target
    position: "Tensor"
    statistics: Mapping[str, "Tensor"]


class SamplingProblem(ABC):
    """A posterior for a sampler, and its parameters and data drawn from their joint law.

    A subclass must implement both methods. Without data, ``draw`` draws from the target itself.
    """

    @abstractmethod
    def draw(self, n_chains: int, generator: "Generator") -> Replicates:
        """``n_chains`` independent draws of parameters and data."""

    @abstractmethod
    def statistics(self, target: Target, x: "Tensor", generator: "Generator") -> Mapping[str, "Tensor"]:
        """The statistics of ``Replicates`` at other positions; what they need beyond ``x`` is drawn."""


@frozen(eq=False)
class Ranks:
    """Ranks that are uniform if the sampler is right.

    Attributes
    ----------
    ranks
        By statistic, shape (R,), from 0 to ``n_ranks`` - 1.
    n_ranks, n_bins
        Number of ranks, and of the bins of equal size that they are counted in.
    acceptance
        Mean acceptance probability on the way.
    """

    ranks: Mapping[str, Integers]
    n_ranks: int
    n_bins: int
    acceptance: float

    @property
    def histograms(self) -> dict[str, Integers]:
        """How many ranks lie in each bin."""
        binned = {name: ranks * self.n_bins // self.n_ranks for name, ranks in self.ranks.items()}
        return {name: np.bincount(bins, minlength=self.n_bins) for name, bins in binned.items()}

    @property
    def p_values(self) -> dict[str, float]:
        """Of the chi-squared test of each histogram."""
        expected = {name: counts.sum() / self.n_bins for name, counts in self.histograms.items()}
        excess = {name: ((c - expected[name]) ** 2).sum() for name, c in self.histograms.items()}
        return {name: float(chi2.sf(excess[name] / expected[name], self.n_bins - 1)) for name in excess}

    @property
    def p_value(self) -> float:
        """The smallest, times their number (Bonferroni): at most p with probability p."""
        return min(1.0, len(self.ranks) * min(self.p_values.values()))

    @property
    def smallest_error(self) -> float:
        """The relative deviation of bin counts, root mean square, that gives p < 1e-3 in 90 % of cases."""
        n_replicates, df = len(next(iter(self.ranks.values()))), self.n_bins - 1
        limit = chi2.isf(_FALSE_ALARM / len(self.ranks), df)
        excess = brentq(lambda x: ncx2.sf(limit, df, x) - _POWER, 1e-6, 100.0 + 10.0 * limit)
        return float(np.sqrt(excess / n_replicates))

    def __str__(self) -> str:
        width = max(map(len, self.ranks))
        rows = [
            f"{name:{width}}  p = {p:<8.2g} {' '.join(map(str, self.histograms[name]))}"
            for name, p in self.p_values.items()
        ]
        return "\n".join([*rows, f"smallest p x {len(rows)} = {self.p_value:.2g}, {self._seen}"])

    @property
    def _seen(self) -> str:
        return f"acceptance {self.acceptance:.2f}, errors of {self.smallest_error:.0%} in counts are seen"


# The two tests -----------------------------------------------------------------------------------


def rank_test(
    problem: SamplingProblem,
    sampler: Sampler,
    *,
    n_replicates: int = 4000,
    n_steps: int = 8,
    n_warmup: int = 0,
    seed: int = 0,
) -> Ranks:
    """The exact rank test (Gandy & Scott 2021, arXiv:2001.06465) of a reversible sampler.

    The exact draw is put at a random place in a chain of ``n_steps`` steps, which are run from there
    forwards and backwards: by the same kernel, as that is reversible. Its rank in the chain is exactly
    uniform, however slow the chain; ties are broken at random. A sampler that is right but not
    reversible fails.

    Chains of one batch share some random choices (the number of leapfrog steps). Given those, ranks are
    uniform only if a step of the chain makes the same choice wherever the draw is put. So both ways
    repeat the random numbers of each step, which no chain uses twice; a sampler should make shared
    choices before those whose number depends on the chains.

    Parameters
    ----------
    n_replicates, n_steps
        R and L.
    n_warmup
        Steps, on other replicates, in which the sampler learns before it is tested.

    Returns
    -------
    Ranks
        From 0 to L, one bin each.
    """
    import torch

    problem, sampler = _checked(problem, sampler)
    n_replicates, n_steps = check_integer("n_replicates", n_replicates), check_integer("n_steps", n_steps)
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    here, start = equilibrium(problem, sampler, n_replicates, n_warmup, generator)
    place = torch.randint(n_steps + 1, (n_replicates,), generator=generator)
    seeds = torch.randint(2**62, (n_steps,), generator=generator).tolist()
    count, acceptance = _Count(here.statistics), []
    for ahead in (True, False):
        state = start
        for edge in range(n_steps)[:: 1 if ahead else -1]:
            noise = torch.Generator().manual_seed(seeds[edge])
            new, info = sampler.step(here.target, state, noise)
            on_the_way = (place <= edge) == ahead  # the others are not there yet
            state = evolve(start.moved(on_the_way, new), memory=new.memory)
            values = problem.statistics(here.target, state.position, generator)
            count.add(values, on_the_way)
            acceptance.append(info.acceptance.mean().item())
    return Ranks(count.ranks(generator), n_steps + 1, n_steps + 1, float(np.mean(acceptance)))


def simulation_based_calibration(
    problem: SamplingProblem,
    sampler: Sampler,
    *,
    n_simulations: int = 1000,
    n_draws: int = 63,
    thin: int = 3,
    n_warmup: int = 100,
    n_bins: int = 16,
    seed: int = 0,
) -> Ranks:
    """Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) of a sampler as it is used.

    Chains start at parameters drawn anew, unrelated to their data, and warm up. The rank of the true
    parameters among the draws that follow is uniform if those are independent draws from the
    posterior: it sees wrong samplers, chains that have not converged, and too little thinning. It
    needs no reversibility.

    Parameters
    ----------
    n_simulations, n_draws, thin, n_warmup
        R sets of data, D draws from a chain for each, steps a draw, and steps before the first.
    n_bins
        A divisor of D + 1.

    Returns
    -------
    Ranks
        From 0 to D, in ``n_bins`` bins.
    """
    import torch

    problem, sampler = _checked(problem, sampler)
    n_simulations, thin = check_integer("n_simulations", n_simulations), check_integer("thin", thin)
    n_draws, n_bins = check_integer("n_draws", n_draws), check_integer("n_bins", n_bins, minimum=2)
    if (n_draws + 1) % n_bins:
        raise ValueError(f"n_bins: expected a divisor of n_draws + 1 = {n_draws + 1}, got {n_bins}")
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    truth = problem.draw(n_simulations, generator)
    elsewhere = problem.draw(n_simulations, generator).position
    state = warmed_up(sampler, truth.target, elsewhere, n_warmup, generator)
    count, acceptance = _Count(truth.statistics), []
    for _ in range(n_draws):
        for _ in range(thin):
            state, info = sampler.step(truth.target, state, generator)
            acceptance.append(info.acceptance.mean().item())
        count.add(problem.statistics(truth.target, state.position, generator))
    return Ranks(count.ranks(generator), n_draws + 1, n_bins, float(np.mean(acceptance)))


# What they need ----------------------------------------------------------------------------------


def warmed_up(sampler: Sampler, target: Target, x: "Tensor", n_steps: int, generator: "Generator") -> State:
    """Chains from ``x`` after ``n_steps`` steps of learning, which then ends; without any, as they start."""
    state = sampler.init(target, x, generator)
    for iteration in range(1, check_integer("n_warmup", n_steps, minimum=0) + 1):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    return sampler.settle(target, state) if n_steps else state


def equilibrium(
    problem: SamplingProblem, sampler: Sampler, n_chains: int, n_warmup: int, generator: "Generator"
) -> tuple[Replicates, State]:
    """Chains in equilibrium, at exact draws, with what the sampler has learned on other replicates."""
    here = problem.draw(n_chains, generator)
    if n_warmup == 0:
        return here, sampler.init(here.target, here.position, generator)
    other = problem.draw(n_chains, generator)
    learned = warmed_up(sampler, other.target, other.position, n_warmup, generator)
    return here, sampler.refresh(here.target, evolve(learned, position=here.position))


class _Count:
    """For each statistic, how many values lie below the first one, and how many are equal to it."""

    def __init__(self, first: Mapping[str, "Tensor"]) -> None:
        self._first = first
        self._below = {name: np.zeros(len(values), dtype=int) for name, values in first.items()}
        self._equal = {name: np.zeros(len(values), dtype=int) for name, values in first.items()}

    def add(self, values: Mapping[str, "Tensor"], which: "Tensor | None" = None) -> None:
        """Count these values, (R,) each, in the replicates ``which`` (R,)."""
        for name, first, now in self._pairs(values):
            counted = np.ones(len(first), dtype=bool) if which is None else which.numpy()
            equal = np.isclose(now, first, rtol=_ROUNDING, atol=0.0)
            self._below[name] += counted & (now < first) & ~equal
            self._equal[name] += counted & equal

    def ranks(self, generator: "Generator") -> dict[str, Integers]:
        """The rank of the first value, at random among those equal to it."""
        import torch

        return {
            name: below
            + (torch.rand(len(below), generator=generator).double().numpy() * (equal + 1)).astype(int)
            for (name, below), equal in zip(self._below.items(), self._equal.values(), strict=True)
        }

    def _pairs(self, values: Mapping[str, "Tensor"]) -> Iterator[tuple[str, Array, Array]]:
        for name, first in self._first.items():
            pair = first.double().numpy(), values[name].double().numpy()
            if not all(np.isfinite(v).all() for v in pair):
                raise ValueError(f"statistics: expected finite numbers, got others of {name!r}")
            yield name, *pair


def _checked(problem: SamplingProblem, sampler: Sampler) -> tuple[SamplingProblem, Sampler]:
    problem = check_instance("problem", problem, SamplingProblem)
    return problem, check_instance("sampler", sampler, Sampler)
