"""Readout weights of single neurons: a Gaussian, branches, or a bulk and what stands out of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import Array, check_integer, check_sequence, describe
from fltheory.plotting.style import (
    NETWORKS,
    THEORY,
    add_legend_above,
    check_alone,
    check_answer,
    check_theories,
    check_theory,
    name_of_answer,
    panels,
    styled,
    title_of,
)

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

_MOST_POINTS = 4000  # in a scatter plot
_N_BINS = 80
_RARE = 1e-3  # a branch of so few neurons does not widen the panel
_REACH = 3.0  # standard deviations of a branch that it shows
_N_DRAWN = 10  # networks of the theory, for a density that is no mixture of Gaussians


@overload
def plot_readouts(
    networks: "PosteriorSamples | MeanFieldSolution",
    theory: MeanFieldSolution | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> Axes: ...


@overload
def plot_readouts(
    networks: "Sequence[PosteriorSamples | MeanFieldSolution]",
    theory: Sequence[MeanFieldSolution | None] | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> NDArray[Any]: ...


def plot_readouts(
    networks: "PosteriorSamples | MeanFieldSolution | Sequence[PosteriorSamples | MeanFieldSolution]",
    theory: MeanFieldSolution | Sequence[MeanFieldSolution | None] | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> Axes | NDArray[Any]:
    """The readout weights of single neurons, and the branches that they settle on.

    Parameters
    ----------
    networks
        Samples, all of whose draws are shown, or a solution of the theory alone; or several, for as many
        panels side by side.
    theory
        What is drawn over samples, and of a theory alone: its density, on a logarithmic scale where phi
        has a slope at infinity, so that single neurons show beside the bulk; or ellipses of two standard
        deviations, one a branch; condensed neurons as diamonds, at sqrt(N) times their readout. For
        several panels one each, or None where there is none.
    output
        One output for a histogram, two for a scatter plot; None: the first two, or the only one.
    ax
        Axes to draw on, one for each of ``networks``; a new figure if None.

    Returns
    -------
    Axes or ndarray
        The axes; an array of them for several samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    is_several = isinstance(networks, tuple | list)
    if is_several:
        rows = check_sequence("networks", networks, check_answer)
        theories = check_theories("theory", theory, rows)
    else:
        rows = (check_answer("networks", networks),)
        theories = (check_theory("theory", theory, rows[0].model),)
    outputs = [_check_outputs(output, row.model.task.n_outputs) for row in rows]
    for own, row in zip(theories, rows, strict=True):
        check_alone("theory", own, row)
    with styled():
        axes = panels(ax, len(rows))
        for panel, row, own, shown in zip(axes, rows, theories, outputs, strict=True):
            _draw(panel, row, own, shown)
    return axes if is_several else axes[0]


def _check_outputs(output: object, n_outputs: int) -> list[int]:
    if output is None:
        return list(range(min(2, n_outputs)))
    if not isinstance(output, tuple | list):
        return [check_integer("output", output, minimum=0, maximum=n_outputs - 1)]
    pair = check_sequence("output", output, check_integer, minimum=0, maximum=n_outputs - 1)
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"output: expected one output or two different ones, got {describe(output)}")
    return list(pair)


def _draw(
    panel: Axes,
    row: "PosteriorSamples | MeanFieldSolution",
    theory: MeanFieldSolution | None,
    outputs: list[int],
) -> None:
    model, readouts, title = row.model, None, title_of(row)
    if not isinstance(row, MeanFieldSolution):
        readouts = row.readouts.reshape(-1, model.task.n_outputs)[:, outputs]
    else:
        theory = row
        title = f"{name_of_answer(row)}, drawn at $N = {model.width}$" if row.outliers else title
    draw = _draw_histogram if len(outputs) == 1 else _draw_scatter
    draw(panel, readouts, theory, model, outputs)
    if theory is not None:
        _mark_outliers(panel, theory, outputs, model.width)
        add_legend_above(panel)
    panel.set_title(title)


# One output --------------------------------------------------------------------------------------


def _draw_histogram(
    panel: Axes, readouts: Array | None, theory: MeanFieldSolution | None, model: Model, outputs: list[int]
) -> None:
    has_tails = not (model.nonlinearity.is_bounded or model.nonlinearity.is_linear)
    panel.set_yscale("log" if has_tails else "linear")
    if readouts is not None:
        panel.hist(readouts[:, 0], bins=_N_BINS, density=True, color=NETWORKS, label="networks")
    if theory is not None and has_tails:
        panel.stairs(*_drawn_density(theory, outputs[0], model.width), **_LINE, label=name_of_answer(theory))
    elif theory is not None:
        laws = _branch_laws(theory, outputs)
        ends = [] if readouts is None else list(panel.get_xlim())
        shown = [(mean[0], np.sqrt(c[0, 0])) for p, mean, c in laws if p >= min(_RARE, laws[0][0])]
        ends += [mean + side * deviation for mean, deviation in shown for side in (-_REACH, _REACH)]
        a = np.linspace(min(ends), max(ends), 800)
        (line,) = panel.plot(a, _density(laws, a), **_LINE, label=name_of_answer(theory))
        line.sticky_edges.y.append(0.0)  # where the panel ends below, as that of a histogram
    panel.set_xlabel(f"readout weight to output {outputs[0]}")
    panel.set_ylabel("density")


_LINE: dict[str, Any] = {"color": THEORY, "linewidth": 1.2}

_Law = tuple[float, Array, Array]  # probability, mean and covariance of the readouts of a branch


def _branch_laws(theory: MeanFieldSolution, outputs: list[int]) -> list[_Law]:
    square = np.ix_(outputs, outputs)
    return [(b.probability, b.readout[outputs], b.readout_covariance[square]) for b in theory.branches]


def _density(laws: list[_Law], a: Array) -> Array:
    """Of the readouts to one output: a Gaussian a branch."""
    density = np.zeros_like(a)
    for probability, mean, covariance in laws:
        scale = np.sqrt(covariance[0, 0])
        density += probability * np.exp(-0.5 * ((a - mean[0]) / scale) ** 2) / (np.sqrt(2 * np.pi) * scale)
    return density


def _drawn_density(theory: MeanFieldSolution, output: int, width: int) -> tuple[Array, Array]:
    """The same from networks drawn from the theory, condensed neurons included: heights and edges."""
    layer = theory.model.n_hidden_layers
    drawn = [theory.neurons(width, layer, seed).readouts for seed in range(_N_DRAWN)]
    values = np.concatenate([readouts[:, output] for readouts in drawn if readouts is not None])
    return np.histogram(values, bins=_N_BINS, density=True)


# Two outputs -------------------------------------------------------------------------------------


def _draw_scatter(
    panel: Axes, readouts: Array | None, theory: MeanFieldSolution | None, model: Model, outputs: list[int]
) -> None:
    if readouts is not None:
        few = min(_MOST_POINTS, len(readouts))
        chosen = np.random.default_rng(0).choice(len(readouts), few, replace=False)
        points: dict[str, Any] = {"color": NETWORKS, "markeredgewidth": 0, "zorder": 1}
        panel.plot(*readouts[np.sort(chosen)].T, ".", markersize=2.5, **points)
        panel.plot([], [], ".", markersize=7.5, label="networks", **points)  # seen in a legend
    if theory is not None:
        _draw_ellipses(panel, theory, outputs)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel(f"readout weight to output {outputs[0]}")
    panel.set_ylabel(f"readout weight to output {outputs[1]}")


def _draw_ellipses(panel: Axes, theory: MeanFieldSolution, outputs: list[int]) -> None:
    for rank, (probability, mean, covariance) in enumerate(_branch_laws(theory, outputs)):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        height, width = 4.0 * np.sqrt(values)
        label = f"{name_of_answer(theory)}, two s.d." if rank == 0 else None
        options = {"fill": False, "edgecolor": THEORY, "linewidth": 0.4 + 1.6 * np.sqrt(probability)}
        panel.add_patch(Ellipse(tuple(mean), width, height, angle=angle, label=label, **options))
    panel.autoscale_view()  # patches do not ask for it


def _mark_outliers(panel: Axes, theory: MeanFieldSolution, outputs: list[int], width: int) -> None:
    """Where a network of this width has the neurons that condense, as one neuron each."""
    if not theory.outliers:
        return
    places = np.sqrt(width) * np.array([outlier.readout[outputs] for outlier in theory.outliers])
    floor = panel.get_ylim()[0] if panel.get_yscale() == "log" else 0.0
    heights = places[:, 1] if len(outputs) == 2 else np.full(len(places), floor)
    panel.plot(
        places[:, 0],
        heights,
        "D",
        color=THEORY,
        markersize=5,
        fillstyle="none",
        clip_on=False,
        label="theory, condensed",
        zorder=3,
    )
