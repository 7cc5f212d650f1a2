"""Theory against networks: one point for each quantity, with its error."""

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from fltheory.numerics.validation import Array, check_instance
from fltheory.plotting.style import MARKERS, PALETTE, add_legend, panels, styled
from fltheory.study import Comparison


def plot_comparison(comparison: Comparison, ax: object = None) -> Axes:
    """What networks say against what the theory says, with two standard errors; on the line they agree.

    Hollow points are frozen: the chains cannot tell their value. Gaps of order 1/N remain however small
    the error.

    Parameters
    ----------
    comparison
        What ``compare`` returned.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or no quantity of the comparison has two values.
    """
    check_instance("comparison", comparison, Comparison)
    groups = _groups(comparison)
    with styled():
        panel: Axes = panels(ax, 1)[0]
        for k, (name, points) in enumerate(groups.items()):
            _draw_group(panel, name, points, PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)])
        every = [point for points in groups.values() for point in points]
        _draw_identity(panel, np.array([(point.theory, point.network) for point in every]))
        add_legend(panel, "upper left", fontsize=7.0)
        panel.set(xlabel="theory", ylabel="networks", title=comparison.heading.split(", N T")[0])
    return panel


@frozen
class _Point:
    """A quantity that both answers have a value of."""

    theory: float
    network: float
    error: float
    is_frozen: bool


def _groups(comparison: Comparison) -> dict[str, list[_Point]]:
    """What has two values, by what the quantity is called before the first comma."""
    groups: dict[str, list[_Point]] = {}
    for row in comparison.rows:
        if row.theory is not None and row.network is not None:
            name = row.quantity.split(",")[0]
            point = _Point(row.theory, row.network, row.standard_error or 0.0, row.frozen)
            groups.setdefault("share of codes" if name.startswith("share") else name, []).append(point)
    if not groups:
        raise ValueError("comparison: expected quantities with a value from theory and networks, got none")
    return groups


def _draw_group(panel: Axes, name: str, points: list[_Point], colour: str, marker: str) -> None:
    for is_frozen in (False, True):
        chosen = [point for point in points if point.is_frozen is is_frozen]
        if chosen:
            panel.errorbar(
                [point.theory for point in chosen],
                [point.network for point in chosen],
                yerr=[2.0 * point.error for point in chosen],
                fmt=marker,
                color=colour,
                markerfacecolor="none" if is_frozen else colour,
                markersize=4.5,
                linewidth=0.8,
                label=name + ", frozen" * is_frozen,
            )


def _draw_identity(panel: Axes, values: Array) -> None:
    """The line of equal values, over a range in which all are seen."""
    low, high = float(values.min()), float(values.max())
    is_wide = low > 0.0 and high > 10.0 * low
    ends = (low / 1.5, high * 1.5) if is_wide else (low - 0.1 * (high - low), high + 0.1 * (high - low))
    if is_wide:
        panel.set(xscale="log", yscale="log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    panel.plot(ends, ends, color="black", linewidth=0.6, zorder=0)
