"""What a run leaves behind: networks, what the sampler said, and what was written down of each draw."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import field, fields_dict, frozen

from fltheory.numerics.validation import Array, sealed

STATISTICS, WEIGHTS, TRACES = "statistics/", "weights/", "traces/"  # how the names of rows begin
READOUTS = "readouts"


@frozen(eq=False)
class Statistics:
    """What the sampler reported, for each chain and draw: all but the last of shape (C, D).

    Attributes
    ----------
    log_density, step_size
        At the position drawn.
    energy, acceptance, n_steps
        Means over the Markov steps since the last draw; ``n_steps`` are gradients a Markov step.
    n_divergences
        Number of divergent steps since the last draw.
    part_acceptance
        ``acceptance`` of each part of a composed sampler, (C, D, parts); parts is 0 for any other.
    """

    log_density: Array
    step_size: Array
    energy: Array
    acceptance: Array
    n_steps: Array
    n_divergences: Array
    part_acceptance: Array


@frozen(eq=False)
class Draws:
    """Networks drawn from the posterior, as far as they were kept.

    Attributes
    ----------
    weights
        W^1 ... W^L, each (C, D, N, N_in), as the chains know them; () unless all was kept.
    readouts
        a, shape (C, D, N, m); None where only statistics were kept.
    statistics
        Of the sampler.
    traces
        Numbers that do not depend on the order of the neurons, by name, each (C, D, ...).
    means
        Averages over the draws of each chain, by name, each (C, ...); none where all was kept.
    """

    weights: tuple[Array, ...]
    readouts: Array | None
    statistics: Statistics
    traces: Mapping[str, Array] = field(factory=dict)
    means: Mapping[str, Array] = field(factory=dict)

    @classmethod
    def of(cls, rows: Mapping[str, Array], means: Mapping[str, Array]) -> "Draws":
        """From rows (C, D, ...) by their full names, made read-only, and averages."""
        rows = {name: sealed(row) for name, row in rows.items()}
        layers = _beginning(rows, WEIGHTS)
        weights = tuple(layers[name] for name in sorted(layers, key=int))
        statistics = Statistics(**_beginning(rows, STATISTICS))
        sealed_means = {name: sealed(mean) for name, mean in means.items()}
        return cls(weights, rows.get(READOUTS), statistics, _beginning(rows, TRACES), sealed_means)

    @property
    def rows(self) -> dict[str, Array]:
        """All arrays (C, D, ...) by their full names: ``of`` inverted."""
        statistics = {name: getattr(self.statistics, name) for name in fields_dict(Statistics)}
        groups = {
            WEIGHTS: {str(layer): w for layer, w in enumerate(self.weights, 1)},
            STATISTICS: statistics,
            TRACES: self.traces,
        }
        found = {start + name: row for start, group in groups.items() for name, row in group.items()}
        return found if self.readouts is None else found | {READOUTS: self.readouts}

    @property
    def n_chains(self) -> int:
        """C."""
        return len(self.statistics.log_density)

    @property
    def n_draws(self) -> int:
        """D, draws a chain."""
        return int(self.statistics.log_density.shape[1])

    @property
    def size(self) -> str:
        """In words."""
        chains, draws = self.n_chains, self.n_draws
        return f"{chains} chain{'s' * (chains != 1)} of {draws} draw{'s' * (draws != 1)}"

    def continued(self, rows: Mapping[str, Array], means: Mapping[str, Array]) -> "Draws":
        """With later rows of the same chains, and the averages over all."""
        return Draws.of(concatenated([self.rows, rows], axis=1), means)


def concatenated(parts: list[Any], axis: int) -> dict[str, Array]:
    """Arrays of the same names, joined along an axis; nothing is copied where there is one part."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}


def _beginning(rows: Mapping[str, Array], start: str) -> dict[str, Array]:
    """Those whose names begin with ``start``, by the rest of their names, in their order."""
    return {name.removeprefix(start): row for name, row in rows.items() if name.startswith(start)}
