"""What the chains of a sampler did."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from fltheory.numerics.validation import Array, check_choice, check_instance, check_integer
from fltheory.plotting.style import NETWORKS, panels, styled, title_of

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples


def plot_ranks(
    *samples: "PosteriorSamples", functional: str | None = None, n_bins: int = 20, ax: object = None
) -> Axes:
    """How the values of each chain rank among those of all: uniform if the chains agree.

    Parameters
    ----------
    samples
        Of one posterior: all their chains are ranked together.
    functional
        A name in ``diagnostics().functionals``; the one with the largest R-hat if None.
    n_bins
        Of the histogram of each chain: as many as draws at most.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    from fltheory.network.diagnostics import ranks

    name, chains = _traced(samples, functional)
    n_bins = min(check_integer("n_bins", n_bins), chains.shape[1])
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    with styled():
        panel: Axes = panels(ax, 1)[0]
        counts = np.array([np.histogram(values, edges)[0] for values in ranks(chains)])
        scale = 1.8 / max(counts.max(), 1.8 * counts.mean())  # no chain reaches into the next
        for chain, count in enumerate(counts):
            base = 2.0 * chain
            heights = np.repeat(base + scale * count, 2)
            panel.fill_between(np.repeat(edges, 2)[1:-1], base, heights, color=NETWORKS, linewidth=0.0)
            even = base + scale * counts.mean()
            panel.axhline(even, color="black", linewidth=0.6, linestyle=":")
            panel.axhline(base, color="black", linewidth=0.6)
        panel.set_yticks(2.0 * np.arange(len(chains)) + 0.5, [str(c) for c in range(len(chains))])
        panel.set(xlim=(0.0, 1.0), xlabel=f"rank of {name}", ylabel="chain", title=title_of(samples[0]))
    return panel


def plot_traces(*samples: "PosteriorSamples", functional: str | None = None, ax: object = None) -> Axes:
    """The values of each chain in the order of its draws.

    Parameters
    ----------
    samples, functional, ax
        As in ``plot_ranks``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    name, chains = _traced(samples, functional)
    with styled():
        panel: Axes = panels(ax, 1)[0]
        for values, colour in zip(
            chains, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(chains))), strict=True
        ):
            panel.plot(values, color=colour, linewidth=0.7)
        panel.set(xlabel="draw", ylabel=name, title=title_of(samples[0]))
    return panel


def _traced(samples: "tuple[PosteriorSamples, ...]", functional: str | None) -> tuple[str, Array]:
    """The name of a functional and its values in all chains, (C, D)."""
    from fltheory.network.samples import PosteriorSamples

    if not samples:
        raise ValueError("samples: expected at least one, got none")
    for i, each in enumerate(samples):
        check_instance(f"samples[{i}]", each, PosteriorSamples)
    values = samples[0].functionals(*samples[1:])
    if functional is None:
        functional = samples[0].diagnostics(*samples[1:]).worst or "log_density"
    return functional, values[check_choice("functional", functional, values)]
