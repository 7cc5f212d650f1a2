"""Have the chains converged? Estimates with their own doubts, and chains that cannot be judged."""

from collections.abc import Mapping

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from attrs import frozen

from fltheory.network.chains import Statistics
from fltheory.numerics.validation import Array, Booleans

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
        four draws.
    stuck_chains, non_finite_chains
        Chains in which it never changed, or was not finite.
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
        stuck = _where(np.all(values == values[:, :1], axis=1))
        if stuck or non_finite or values.shape[1] < _FEWEST_DRAWS:
            return cls(float(values.mean()), None, None, None, stuck, non_finite)
        ess = float(array_stats.ess(values))  # type: ignore[no-untyped-call]
        rhat = float(array_stats.rhat(values))  # type: ignore[no-untyped-call]
        return cls(float(values.mean()), float(values.std() / np.sqrt(ess)), rhat, ess, (), ())


@frozen
class Diagnostics:
    """What to look at before believing an average.

    Attributes
    ----------
    functionals
        The convergence of each functional, by name.
    acceptance_rate
        Of each chain.
    n_divergences
        Divergent steps of each chain.
    """

    functionals: Mapping[str, Convergence]
    acceptance_rate: tuple[float, ...]
    n_divergences: tuple[int, ...]

    @property
    def stuck_chains(self) -> tuple[int, ...]:
        """Chains in which some functional never changed."""
        return tuple(sorted({c for f in self.functionals.values() for c in f.stuck_chains}))

    @property
    def non_finite_chains(self) -> tuple[int, ...]:
        """Chains in which some functional was not finite."""
        return tuple(sorted({c for f in self.functionals.values() for c in f.non_finite_chains}))

    def __str__(self) -> str:
        rows = [f"{'':20}{'mean':>12}{'error':>10}{'R-hat':>8}{'ESS':>8}"]
        for name, f in self.functionals.items():
            error, rhat, ess = (
                text_or_dash(f.standard_error, ".2g"),
                text_or_dash(f.rhat, ".3f"),
                text_or_dash(f.ess, ".0f"),
            )
            rows.append(f"{name:20}{f.mean:12.5g}{error:>10}{rhat:>8}{ess:>8}")
        rows.append(f"acceptance {', '.join(f'{a:.2f}' for a in self.acceptance_rate)}")
        rows.append(f"divergences {', '.join(map(str, self.n_divergences))}")
        rows.append(f"stuck chains {self.stuck_chains}, non-finite chains {self.non_finite_chains}")
        return "\n".join(rows)


def diagnose(functionals: Mapping[str, Array], statistics: Statistics) -> Diagnostics:
    """Diagnostics of functionals (C, D), by name, of chains with these statistics."""
    return Diagnostics(
        {name: Convergence.of(values) for name, values in functionals.items()},
        tuple(float(a) for a in statistics.acceptance.mean(1)),
        tuple(int(n) for n in statistics.n_divergences.sum(1)),
    )


def _where(mask: Booleans) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def text_or_dash(value: float | None, style: str) -> str:
    """A number as it stands in a table, a dash if it is not known."""
    return "-" if value is None else format(value, style)
