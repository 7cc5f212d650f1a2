"""Readout weights of single neurons: a Gaussian, branches, or a bulk and what stands out of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import Array, check_instance, check_integer, check_sequence, describe
from fltheory.plotting.style import (
    NETWORKS,
    THEORY,
    add_legend,
    check_theories,
    name_of_theory,
    panels,
    styled,
    title_of,
)

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

_MOST_POINTS = 4000  # in a scatter plot
_N_BINS = 80
_RARE = 1e-3  # a branch of so few neurons does not widen the panel
_N_DRAWN = 10  # networks of the theory, for a density that is no mixture of Gaussians


@overload
def plot_readouts(
    networks: "PosteriorSamples",
    theory: MeanFieldSolution | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> Axes: ...


@overload
def plot_readouts(
    networks: "Sequence[PosteriorSamples]",
    theory: Sequence[MeanFieldSolution | None] | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> NDArray[Any]: ...


def plot_readouts(
    networks: "PosteriorSamples | Sequence[PosteriorSamples]",
    theory: MeanFieldSolution | Sequence[MeanFieldSolution | None] | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> Axes | NDArray[Any]:
    """The readout weights of single neurons, and the branches that they settle on.

    Parameters
    ----------
    networks
        Samples, all of whose draws are shown; or several, for as many panels side by side.
    theory
        What is drawn over them: the density of the theory, on a logarithmic scale where phi has a slope
        at infinity, so that single neurons show beside the bulk; or ellipses of two standard deviations,
        one a branch; condensed neurons as diamonds, at sqrt(N) times their readout. For several samples
        one each, or None where there is none.
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
    from fltheory.network.samples import PosteriorSamples

    is_several = isinstance(networks, tuple | list)
    if is_several:
        samples = check_sequence("networks", networks, check_instance, kind=PosteriorSamples)
        theories = check_theories("theory", theory, len(samples))
    else:
        samples = (check_instance("networks", networks, PosteriorSamples),)
        theories = (check_instance("theory", theory, MeanFieldSolution, optional=True),)
    outputs = [_check_outputs(output, each.model.task.n_outputs) for each in samples]
    for own, each in zip(theories, samples, strict=True):
        _check_same_outputs(own, each.model)
    with styled():
        axes = panels(ax, len(samples))
        for panel, each, own, shown in zip(axes, samples, theories, outputs, strict=True):
            _draw(panel, each, own, shown)
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


def _check_same_outputs(theory: MeanFieldSolution | None, model: Model) -> None:
    if theory is not None and theory.model.task.n_outputs != model.task.n_outputs:
        raise ValueError(
            f"theory: expected one for {model.task.n_outputs} outputs, got one for "
            f"{theory.model.task.n_outputs}"
        )


def _draw(
    panel: Axes, networks: "PosteriorSamples", theory: MeanFieldSolution | None, outputs: list[int]
) -> None:
    readouts = networks.readouts.reshape(-1, networks.model.task.n_outputs)[:, outputs]
    draw = _draw_histogram if len(outputs) == 1 else _draw_scatter
    draw(panel, readouts, theory, networks.model, outputs)
    if theory is not None and theory.outliers:
        _mark_outliers(panel, theory, outputs, networks.model.width)
    panel.set_title(title_of(networks))


# One output --------------------------------------------------------------------------------------


def _draw_histogram(
    panel: Axes, readouts: Array, theory: MeanFieldSolution | None, model: Model, outputs: list[int]
) -> None:
    has_tails = not (model.nonlinearity.is_bounded or model.nonlinearity.is_linear)
    panel.hist(readouts[:, 0], bins=_N_BINS, density=True, log=has_tails, color=NETWORKS, label="networks")
    if theory is not None and has_tails:
        panel.stairs(*_drawn_density(theory, outputs[0], model.width), **_LINE, label=name_of_theory(theory))
    elif theory is not None:
        laws, (low, high) = _branch_laws(theory, outputs), panel.get_xlim()
        ends = [mean[0] + side * np.sqrt(c[0, 0]) for p, mean, c in laws if p > _RARE for side in (-3.0, 3.0)]
        a = np.linspace(min(low, *ends), max(high, *ends), 800)
        panel.plot(a, _density(laws, a), **_LINE, label=name_of_theory(theory))
    if theory is not None:
        add_legend(panel)
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
    panel: Axes, readouts: Array, theory: MeanFieldSolution | None, model: Model, outputs: list[int]
) -> None:
    few = min(_MOST_POINTS, len(readouts))
    chosen = np.random.default_rng(0).choice(len(readouts), few, replace=False)
    shown = readouts[np.sort(chosen)]
    panel.plot(*shown.T, ".", color=NETWORKS, markersize=2.5, markeredgewidth=0, label="networks", zorder=1)
    for rank, (probability, mean, covariance) in enumerate(_branch_laws(theory, outputs) if theory else ()):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        height, width = 4.0 * np.sqrt(values)
        label = "theory, two s.d." if rank == 0 else None
        options = {"fill": False, "edgecolor": THEORY, "linewidth": 0.4 + 1.6 * np.sqrt(probability)}
        panel.add_patch(Ellipse(tuple(mean), width, height, angle=angle, label=label, **options))
    if theory is not None:
        add_legend(panel, markerscale=3.0)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel(f"readout weight to output {outputs[0]}")
    panel.set_ylabel(f"readout weight to output {outputs[1]}")


def _mark_outliers(panel: Axes, theory: MeanFieldSolution, outputs: list[int], width: int) -> None:
    """Where a network of this width has the neurons that condense, as one neuron each."""
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
    add_legend(panel)
