"""Have the chains converged? Estimates with their own doubts, and chains that cannot be judged."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from attrs import frozen

from fltheory.network.draws import Draws
from fltheory.numerics.validation import Array, Booleans

_LARGEST_RHAT = 1.05  # above, the chains disagree
_FEWEST_EFFECTIVE_DRAWS = 100
_CODE = "code "
_RAREST_CODE = 0.01  # mean share of the neurons up to which a code is left out
_FEWEST_DRAWS = 4  # below, R-hat and the effective sample size are not defined


@frozen
class Convergence:
    """How well one functional is known.

    Attributes
    ----------
    mean, standard_error
        Over chains and draws; the error is the standard deviation over the root of ``ess``.
    rhat, ess
        R-hat and the effective sample size (rank-normalised split chains, Vehtari et al. 2021).
        None, as the error, where they are not defined: stuck or non-finite chains, fewer than
        four draws; R-hat also for a single chain.
    stuck_chains, non_finite_chains
        Chains in which it never changed in four draws or more, or was not finite.
    """

    mean: float
    standard_error: float | None
    rhat: float | None
    ess: float | None
    stuck_chains: tuple[int, ...]
    non_finite_chains: tuple[int, ...]

    @classmethod
    def of(cls, values: Array) -> "Convergence":
        """From the values of a functional, shape (C, D)."""
        non_finite = _where(np.any(~np.isfinite(values), axis=1))
        is_short = values.shape[1] < _FEWEST_DRAWS
        stuck = () if is_short else _where(np.all(values == values[:, :1], axis=1))
        if stuck or non_finite or is_short:
            return cls(float(values.mean()), None, None, None, stuck, non_finite)
        ess = float(array_stats.ess(values))  # type: ignore[no-untyped-call]
        rhat = None if len(values) == 1 else float(array_stats.rhat(values))  # type: ignore[no-untyped-call]
        return cls(float(values.mean()), float(values.std() / np.sqrt(ess)), rhat, ess, (), ())


@frozen
class Diagnostics:
    """What to look at before believing an average. Prints as a table.

    Attributes
    ----------
    functionals
        The convergence of each functional, by name. None depends on the order of the neurons.
    acceptance_rate, part_acceptance
        Of each chain, and of each part of a composed sampler in it.
    n_divergences
        Divergent steps of each chain.
    """

    functionals: Mapping[str, Convergence]
    acceptance_rate: tuple[float, ...]
    n_divergences: tuple[int, ...]
    part_acceptance: tuple[tuple[float, ...], ...] = ()

    @property
    def stuck_chains(self) -> tuple[int, ...]:
        """Chains in which some functional never changed, other than the share of a code."""
        chains = {c for name, f in self.functionals.items() if not _is_code(name) for c in f.stuck_chains}
        return tuple(sorted(chains))

    @property
    def non_finite_chains(self) -> tuple[int, ...]:
        """Chains in which some functional was not finite."""
        return tuple(sorted({c for f in self.functionals.values() for c in f.non_finite_chains}))

    @property
    def frozen_codes(self) -> tuple[str, ...]:
        """Codes whose share of the neurons never changed in some chain."""
        return tuple(name for name, f in self.functionals.items() if _is_code(name) and f.stuck_chains)

    @property
    def worst(self) -> str | None:
        """The functional of the largest R-hat; None if none is known."""
        known = {name: f.rhat for name, f in self.functionals.items() if f.rhat is not None}
        return max(known, key=lambda name: known[name], default=None)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to believe averages, the gravest first; () if there are none."""
        return tuple(self._doubts())

    def _doubts(self) -> Iterator[str]:
        if self.non_finite_chains:
            yield f"chains {self.non_finite_chains} are not finite"
        if self.stuck_chains:
            yield f"chains {self.stuck_chains} are stuck"
        if self.frozen_codes:
            yield f"the share of {self.frozen_codes[0]} is frozen"
        worst = self.worst
        rhat = None if worst is None else self.functionals[worst].rhat
        if rhat is not None and not rhat <= _LARGEST_RHAT:
            yield f"R-hat {rhat:.2f} of {worst}"
        if len(self.acceptance_rate) == 1:
            yield "one chain cannot be checked against others"
        yield from self._few_draws()
        if sum(self.n_divergences):
            yield f"{sum(self.n_divergences)} divergent steps"

    def _few_draws(self) -> Iterator[str]:
        sizes = {name: f.ess for name, f in self.functionals.items() if f.ess is not None}
        if not sizes:
            yield "too few draws to tell"
        elif min(sizes.values()) < _FEWEST_EFFECTIVE_DRAWS:
            name = min(sizes, key=lambda name: sizes[name])
            yield f"only {sizes[name]:.0f} effective draws of {name}"

    def __str__(self) -> str:
        width = max(20, *(len(name) + 1 for name in self.functionals))
        rows = [f"{'':{width}}{'mean':>12}{'error':>10}{'R-hat':>8}{'ESS':>8}"]
        for name, f in self.functionals.items():
            error, rhat, ess = (
                text_or_dash(f.standard_error, ".2g"),
                text_or_dash(f.rhat, ".3f"),
                text_or_dash(f.ess, ".0f"),
            )
            rows.append(f"{name:{width}}{f.mean:12.5g}{error:>10}{rhat:>8}{ess:>8}")
        rows.append(f"acceptance {', '.join(f'{a:.2f}' for a in self.acceptance_rate)}")
        for part, rates in enumerate(zip(*self.part_acceptance, strict=True), 1):
            rows.append(f"  of part {part} {', '.join(f'{a:.2f}' for a in rates)}")
        rows.append(f"divergences {', '.join(map(str, self.n_divergences))}")
        rows.append(f"stuck chains {self.stuck_chains}, non-finite chains {self.non_finite_chains}")
        rows.append("doubts: " + ("; ".join(self.doubts) or "none"))
        return "\n".join(rows)


def diagnose(*runs: Draws, temperature: float = 1.0) -> Diagnostics:
    """Diagnostics of all chains of some runs of one posterior, as many draws of each as all have.

    Parameters
    ----------
    temperature
        T: at 0 there is no training error, at infinity no dual field.
    """
    functionals = functionals_of(*runs, temperature=temperature)
    statistics = [draws.statistics for draws in runs]
    acceptance = np.concatenate([s.acceptance.mean(1) for s in statistics])
    divergences = np.concatenate([s.n_divergences.sum(1) for s in statistics])
    parts = [tuple(row.tolist()) for s in statistics for row in s.part_acceptance.mean(1)]
    has_parts = len({len(row) for row in parts}) == 1 and bool(parts[0])
    return Diagnostics(
        {name: Convergence.of(values) for name, values in functionals.items()},
        tuple(acceptance.tolist()),
        tuple(int(n) for n in divergences),
        tuple(parts) if has_parts else (),
    )


def functionals_of(*runs: Draws, temperature: float = 1.0) -> dict[str, Array]:
    """What is judged, by name, (C, D), C the chains of all runs: log density, kernels, outputs, codes."""
    n_draws = min(draws.n_draws for draws in runs)
    found = [_of_one_run(draws, temperature) for draws in runs]
    names = [name for name in found[0] if all(name in run for run in found)]
    joined = {name: np.concatenate([run[name][:, :n_draws] for run in found]) for name in names}
    return {name: values for name, values in joined.items() if not _is_code(name) or _is_seen(values)}


def _of_one_run(draws: Draws, temperature: float) -> dict[str, Array]:
    without = {0.0: "training_error", math.inf: "dual_field_square"}.get(temperature)
    found = {"log_density": draws.statistics.log_density}
    for name, trace in draws.traces.items():
        if name in (without, "dual_field"):
            continue
        labels = [name] if trace.ndim == 2 else _names(name, trace.shape[-1])
        found |= zip(labels, np.moveaxis(trace[..., None] if trace.ndim == 2 else trace, -1, 0), strict=True)
    return found


def _names(trace: str, length: int) -> list[str]:
    """Of the entries of a trace with several."""
    if trace == "code_shares":
        n_classes = length.bit_length() - 1
        return [_CODE + f"{k:0{n_classes}b}"[::-1] for k in range(length)]
    if trace.startswith("kernel_blocks"):
        n_classes = math.isqrt(2 * length)  # length = k (k + 1) / 2
        pairs = zip(*np.triu_indices(n_classes), strict=True)
        return [f"{trace.replace('blocks', 'block')} {i}-{j}" for i, j in pairs]
    return [f"{trace} {k}" for k in range(length)]


def _is_code(name: str) -> bool:
    return name.startswith(_CODE)


def _is_seen(shares: Array) -> bool:
    """Whether a code is neither rare nor that of all neurons of all networks (or its share not finite)."""
    return not (shares.mean() <= _RAREST_CODE or (shares == 1.0).all())


def ranks(values: Array) -> Array:
    """The rank of each value among those of all chains, from 0 to just below 1: (C, D) to (C, D).

    Chains that have converged have uniform ranks (Vehtari et al. 2021). Ties are broken at random.
    """
    tie = np.random.default_rng(0).random(values.size)
    found = np.empty(values.size)
    found[np.lexsort((tie, values.ravel()))] = (np.arange(values.size) + 0.5) / values.size
    return found.reshape(values.shape)


def _where(mask: Booleans) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def text_or_dash(value: float | None, style: str) -> str:
    """A number as it stands in a table, a dash if it is not known."""
    return "-" if value is None else format(value, style)
