"""Figures of representations: kernels, activations and readouts. Representations in, axes out."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from fltheory.coding import find_codes, leading_order
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import (
    Array,
    Integers,
    check_choice,
    check_instance,
    check_integer,
    check_sequence,
    describe,
)
from fltheory.representation import Representation

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "image.interpolation": "nearest",
}
_THEORY, _NETWORKS = "#c1272d", "0.6"
_KERNELS, _ACTIVATIONS, _SIGNED = "magma", "gray_r", "RdBu_r"
_BOUNDARIES = {_KERNELS: "white", _ACTIVATIONS: "#e39b1c", _SIGNED: "black"}  # seen on these colours
_PERCENTILE, _OUTLYING = 99.5, 1.3  # a colour scale ends there if the largest value is that far above
_MOST_POINTS = 4000  # in a scatter plot
_MOST_NAMES = 12  # of classes along an axis


def plot_kernels(*representations: Representation, layer: int = 1, ax: object = None) -> NDArray[Any]:
    """The kernels of one layer side by side, on one colour scale.

    Parameters
    ----------
    representations
        Theory, samples, in the order of the panels; all for the same number of inputs.
    layer
        0 (the input kernel) to L.
    ax
        As many axes as representations; a new figure if None.

    Returns
    -------
    ndarray
        The axes.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    if not representations:
        raise ValueError("representations: expected at least one, got none")
    for i, representation in enumerate(representations):
        check_instance(f"representations[{i}]", representation, Representation)
    kernels = [representation.kernel(layer) for representation in representations]
    if len({kernel.shape for kernel in kernels}) > 1:
        raise ValueError(
            f"representations: expected the same number of inputs for all, got {[len(k) for k in kernels]}"
        )
    with mpl.rc_context(_STYLE):
        axes = _check_axes(ax, len(kernels))
        # Pairs of different inputs set the scale: the diagonal can be far above.
        norm, colours = _scale(np.concatenate([_off_diagonal(kernel) for kernel in kernels]), _KERNELS)
        for panel, representation, kernel in zip(axes, representations, kernels, strict=True):
            image = panel.imshow(kernel, norm=norm, cmap=colours)
            panel.set_title(_title(representation))
            _mark_classes(panel, representation.model, colours, "x")
            _mark_classes(panel, representation.model, colours, "y", named=panel is axes[0])
        _add_colours(axes, image, kernels, f"kernel $K_{{{layer}}}$")
    return axes


def plot_activations(
    representation: Representation, layer: int = 1, n: int | None = None, seed: int = 0, ax: object = None
) -> Axes:
    """The neurons of one network against the inputs, ordered by code.

    Parameters
    ----------
    representation
        Theory or samples, of which a network is drawn.
    layer
        1 to L.
    n
        Number of neurons; the width of the network if None.
    seed
        Of the draw.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    check_instance("representation", representation, Representation)
    model = representation.model
    layer = model.check_layer(layer, lowest=1)
    n = model.width if n is None else check_integer("n", n)
    seed = check_integer("seed", seed, minimum=0)
    activations = representation.neurons(n, layer, seed).activations
    order, ends, what = _neuron_order(representation, activations, layer, seed)
    with mpl.rc_context(_STYLE):
        axes = _check_axes(ax, 1)
        panel: Axes = axes[0]
        norm, colours = _scale(activations.ravel(), _ACTIVATIONS)
        image = panel.imshow(activations[order], norm=norm, cmap=colours, aspect="auto")
        for end in ends[:-1]:
            panel.axhline(end - 0.5, color=_BOUNDARIES[colours], linewidth=0.8)
        _mark_classes(panel, model, colours, "x")
        panel.set_ylabel(what)
        panel.set_title(_title(representation, networks="one network"))
        _add_colours(axes, image, [activations], rf"activation $\phi(z^{{{layer}}})$")
    return panel


def plot_readouts(
    networks: "PosteriorSamples",
    theory: MeanFieldSolution | None = None,
    output: int | tuple[int, int] | None = None,
    ax: object = None,
) -> Axes:
    """The readout weights of single neurons, and the branches that they settle on.

    Parameters
    ----------
    networks
        Samples, all of whose draws are shown.
    theory
        Whose branches are drawn over them: their density, or ellipses of two standard deviations;
        condensed neurons as diamonds, at sqrt(N) times their readout.
    output
        One output for a histogram, two for a scatter plot; None: the first two, or the only one.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    from fltheory.network.samples import PosteriorSamples

    check_instance("networks", networks, PosteriorSamples)
    check_instance("theory", theory, MeanFieldSolution, optional=True)
    outputs = _check_outputs(output, networks.model.task.n_outputs)
    if theory is not None and theory.model.task.n_outputs != networks.model.task.n_outputs:
        raise ValueError(
            f"theory: expected one for {networks.model.task.n_outputs} outputs, got one for "
            f"{theory.model.task.n_outputs}"
        )
    readouts = networks.readouts.reshape(-1, networks.model.task.n_outputs)[:, outputs]
    with mpl.rc_context(_STYLE):
        panel: Axes = _check_axes(ax, 1)[0]
        draw = _draw_histogram if len(outputs) == 1 else _draw_scatter
        draw(panel, readouts, [] if theory is None else _branch_laws(theory, outputs), outputs)
        if theory is not None and theory.outliers:
            _mark_outliers(panel, theory, outputs, networks.model.width)
        panel.set_title(_title(networks))
    return panel


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
        Of the histogram of each chain.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    from fltheory.network.diagnostics import ranks

    name, chains = _traced(samples, functional)
    n_bins = check_integer("n_bins", n_bins, maximum=max(chains.shape[1], 1))
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    with mpl.rc_context(_STYLE):
        panel: Axes = _check_axes(ax, 1)[0]
        counts = np.array([np.histogram(values, edges)[0] for values in ranks(chains)])
        scale = 1.8 / max(counts.max(), 1.8 * counts.mean())  # no chain reaches into the next
        for chain, count in enumerate(counts):
            base = 2.0 * chain
            heights = np.repeat(base + scale * count, 2)
            panel.fill_between(np.repeat(edges, 2)[1:-1], base, heights, color=_NETWORKS, linewidth=0.0)
            even = base + scale * counts.mean()
            panel.axhline(even, color="black", linewidth=0.6, linestyle=":")
            panel.axhline(base, color="black", linewidth=0.6)
        panel.set_yticks(2.0 * np.arange(len(chains)) + 0.5, [str(c) for c in range(len(chains))])
        panel.set(xlim=(0.0, 1.0), xlabel=f"rank of {name}", ylabel="chain", title=_title(samples[0]))
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
    with mpl.rc_context(_STYLE):
        panel: Axes = _check_axes(ax, 1)[0]
        for values, colour in zip(
            chains, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(chains))), strict=True
        ):
            panel.plot(values, color=colour, linewidth=0.7)
        panel.set(xlabel="draw", ylabel=name, title=_title(samples[0]))
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


# Readouts ----------------------------------------------------------------------------------------

_Law = tuple[float, Array, Array]  # probability, mean and covariance of the readouts of a branch


def _branch_laws(theory: MeanFieldSolution, outputs: list[int]) -> list[_Law]:
    square = np.ix_(outputs, outputs)
    return [(b.probability, b.readout[outputs], b.readout_covariance[square]) for b in theory.branches]


def _draw_histogram(panel: Axes, readouts: Array, branches: list[_Law], outputs: list[int]) -> None:
    panel.hist(readouts[:, 0], bins=80, density=True, color=_NETWORKS, label="networks")
    a = np.linspace(*panel.get_xlim(), 800)
    density = np.zeros_like(a)
    for probability, mean, covariance in branches:
        scale = np.sqrt(covariance[0, 0])
        density += probability * np.exp(-0.5 * ((a - mean[0]) / scale) ** 2) / (np.sqrt(2 * np.pi) * scale)
    if branches:
        panel.plot(a, density, color=_THEORY, linewidth=1.2, label="theory")
        panel.legend(frameon=False, handlelength=1.2)
    panel.set_xlabel(f"readout weight to output {outputs[0]}")
    panel.set_ylabel("density")


def _draw_scatter(panel: Axes, readouts: Array, branches: list[_Law], outputs: list[int]) -> None:
    few = min(_MOST_POINTS, len(readouts))
    chosen = np.random.default_rng(0).choice(len(readouts), few, replace=False)
    shown = readouts[np.sort(chosen)]
    panel.plot(*shown.T, ".", color=_NETWORKS, markersize=2.5, markeredgewidth=0, label="networks", zorder=1)
    for rank, (probability, mean, covariance) in enumerate(branches):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        height, width = 4.0 * np.sqrt(values)
        label = "theory, two s.d." if rank == 0 else None
        options = {"fill": False, "edgecolor": _THEORY, "linewidth": 0.4 + 1.6 * np.sqrt(probability)}
        panel.add_patch(Ellipse(tuple(mean), width, height, angle=angle, label=label, **options))
    if branches:
        panel.legend(frameon=False, handlelength=1.2, markerscale=3.0)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel(f"readout weight to output {outputs[0]}")
    panel.set_ylabel(f"readout weight to output {outputs[1]}")


def _mark_outliers(panel: Axes, theory: MeanFieldSolution, outputs: list[int], width: int) -> None:
    """Where a network of this width has the neurons that condense, as one neuron each."""
    places = np.sqrt(width) * np.array([outlier.readout[outputs] for outlier in theory.outliers])
    heights = places[:, 1] if len(outputs) == 2 else np.zeros(len(places))
    panel.plot(
        places[:, 0],
        heights,
        "D",
        color=_THEORY,
        markersize=5,
        fillstyle="none",
        clip_on=False,
        label="theory, condensed",
        zorder=3,
    )
    panel.legend(frameon=False, handlelength=1.2)


def _check_outputs(output: object, n_outputs: int) -> list[int]:
    if output is None:
        return list(range(min(2, n_outputs)))
    if not isinstance(output, tuple | list):
        return [check_integer("output", output, minimum=0, maximum=n_outputs - 1)]
    pair = check_sequence("output", output, check_integer, minimum=0, maximum=n_outputs - 1)
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"output: expected one output or two different ones, got {describe(output)}")
    return list(pair)


# What panels share -------------------------------------------------------------------------------


def _check_axes(ax: object, count: int) -> NDArray[Any]:
    """``count`` axes: those given, or those of a new figure."""
    if ax is None:
        _, new = plt.subplots(1, count, squeeze=False, figsize=(0.8 + 3.0 * count, 3.0), layout="constrained")
        return np.asarray(new[0])
    axes = np.array(ax, dtype=object).ravel()
    if len(axes) != count or not all(isinstance(panel, Axes) for panel in axes):
        wanted = "matplotlib axes" if count == 1 else f"{count} matplotlib axes"
        raise TypeError(f"ax: expected {wanted}, got {describe(ax)}")
    return axes


def _title(representation: Representation, networks: str = "networks") -> str:
    if isinstance(representation, MeanFieldSolution):
        return r"theory, $N \to \infty$"
    return f"{networks}, $N = {representation.model.width}$"


def _scale(values: Array, rising: str) -> tuple[Normalize, str]:
    """Colours that rise from 0 or, for values of both signs, diverge from it."""
    size = np.abs(values)
    common, largest = float(np.percentile(size, _PERCENTILE)), float(size.max())
    end = (common if largest > _OUTLYING * common else largest) or 1.0
    if values.min() < -0.02 * end:
        return Normalize(-end, end), _SIGNED
    return Normalize(0.0, end), rising


def _add_colours(axes: NDArray[Any], image: AxesImage, arrays: list[Array], label: str) -> None:
    """A colour bar for all axes, with arrows where values lie outside."""
    low, high = image.get_clim()
    outside = any(array.min() < low - 1e-9 for array in arrays), any(array.max() > high for array in arrays)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = axes[0].figure.colorbar(image, ax=list(axes), extend=extend[outside], shrink=0.85, aspect=24)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def _off_diagonal(kernel: Array) -> Array:
    """The entries for different inputs, all entries if there is only one."""
    return kernel[~np.eye(len(kernel), dtype=bool)] if len(kernel) > 1 else kernel.ravel()


def _mark_classes(panel: Axes, model: Model, colours: str, which: str, *, named: bool = True) -> None:
    """Boundaries where the class changes along the axis "x" or "y" and, if ``named``, the classes."""
    labels = model.task.labels
    axis, line = (panel.xaxis, panel.axvline) if which == "x" else (panel.yaxis, panel.axhline)
    starts = np.zeros(1, int) if labels is None else np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    for start in starts[1:]:
        line(start - 0.5, color=_BOUNDARIES[colours], linewidth=0.8)
    if not named:
        axis.set_ticks([])
        return
    axis.set_label_text("inputs" if labels is None else "inputs, by class")
    if labels is not None and len(starts) <= _MOST_NAMES:
        ends = np.append(starts[1:], len(labels))
        axis.set_ticks((starts + ends - 1) / 2, [str(labels[i]) for i in starts])
        axis.set_tick_params(length=0)


def _neuron_order(
    representation: Representation, activations: Array, layer: int, seed: int
) -> tuple[Integers, list[int], str]:
    """An order of the neurons, where each code ends in it (nowhere if the code is analog), and its name."""
    model = representation.model
    if model.task.labels is None:
        return leading_order(activations), [], "neurons, ordered"
    codes = find_codes(representation, layer, len(activations), seed)
    if model.nonlinearity.is_linear:
        return codes.order, [], "neurons, ordered"
    return codes.order, np.cumsum(np.bincount(codes.members)).tolist(), "neurons, by code"
