"""How representations change along a trajectory of networks."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from fltheory.coding import find_codes, leading_order, overlap, overlap_limit
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import (
    Array,
    Integers,
    check_choice,
    check_instance,
    check_integer,
    check_sequence,
)
from fltheory.plotting.activations import by_class, draw_neurons, strongest
from fltheory.plotting.style import (
    MARKERS,
    PALETTE,
    add_legend,
    add_slim_colours,
    check_theories,
    check_theory,
    grid,
    name_of,
    panels,
    styled,
    title_of,
)

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

_SIZE = (2.6, 2.2)  # inches a panel
_N_LAGS = 12


def plot_overlap(
    trajectory: "PosteriorSamples",
    theory: MeanFieldSolution | None = None,
    modulo: str = "nothing",
    ax: object = None,
) -> Axes:
    """How much of each layer's representation is left after a number of draws: 1 all, 0 nothing.

    Parameters
    ----------
    trajectory
        Samples whose draws follow one another, by ``Langevin`` or another sampler.
    theory
        Whose limits at long times are drawn beside the panel, as hollow marks.
    modulo
        "nothing": each neuron is compared with itself; "permutation": with the neuron that matches best.
        Strangers match too: dashed lines are the overlap of two chains, where there are two.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or there are fewer than two draws.
    """
    _check_trajectory("trajectory", trajectory)
    theory = check_theory("theory", theory, trajectory.model)
    check_choice("modulo", modulo, ("nothing", "permutation"))
    with styled():
        panel: Axes = panels(ax, 1)[0]
        _draw_overlaps(panel, trajectory, theory, modulo)
        panel.set_title(title_of(trajectory))
    return panel


def plot_drift(
    *trajectories: "PosteriorSamples", theories: object = None, n_strongest: int = 9, ax: object = None
) -> NDArray[Any]:
    """The neurons of the last layer at two times and the overlap of all layers; one row a trajectory.

    Parameters
    ----------
    trajectories
        Samples whose draws follow one another, by ``Langevin`` or another sampler. The neurons shown
        are those of the first chain, in the order of their codes in its first draw.
    theories
        A ``MeanFieldSolution`` for each of them, or None where there is none, whose limits of the
        overlap are drawn as in ``plot_overlap``.
    n_strongest
        How many neurons are shown, the most active of the first draw, where phi is nonlinear with a slope
        at infinity.
    ax
        As many rows of 3 axes as trajectories; a new figure if None.

    Returns
    -------
    ndarray
        The axes, (rows, 3): first draw, last draw, overlap.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or there are fewer than two draws.
    """
    rows = check_sequence("trajectories", trajectories, _check_trajectory)
    own = check_theories("theories", theories, rows)
    n_strongest = check_integer("n_strongest", n_strongest)
    with styled():
        axes = grid(ax, len(rows), 3, _SIZE)
        known: set[str] = set()
        for line, trajectory, theory in zip(axes, rows, own, strict=True):
            _draw_snapshots(line[0], line[1], trajectory, n_strongest)
            _draw_overlaps(line[2], trajectory, theory, "nothing")
            labels = set(line[2].get_legend_handles_labels()[1])
            if labels <= known:  # told above already: a legend hides what is behind it
                line[2].get_legend().remove()
            known |= labels
        _name(axes, rows)
    return axes


def _check_trajectory(name: str, value: object) -> "PosteriorSamples":
    from fltheory.network.samples import PosteriorSamples

    samples: PosteriorSamples = check_instance(name, value, PosteriorSamples)
    if samples.n_draws < 2:
        raise ValueError(f"{name}: expected at least two draws, got {samples.n_draws}")
    return samples


def _draw_overlaps(
    panel: Axes, trajectory: "PosteriorSamples", theory: MeanFieldSolution | None, modulo: str
) -> None:
    last = trajectory.n_draws - 1
    lags = np.unique(np.geomspace(1, last, min(_N_LAGS, last)).round().astype(int))
    for layer in range(1, trajectory.model.n_hidden_layers + 1):
        found = overlap(trajectory, layer, [0, *lags.tolist()], modulo)
        k = (layer - 1) % len(PALETTE)
        line: dict[str, Any] = {
            "color": PALETTE[k],
            "marker": MARKERS[k],
            "markersize": 3.0,
            "linewidth": 0.9,
        }
        error = None if found.standard_error is None else 2.0 * found.standard_error
        panel.errorbar(found.lags, found.overlap, yerr=error, label=f"layer {layer}", **line)
        if modulo == "permutation" and found.baseline is not None:
            panel.axhline(found.baseline, color=PALETTE[k], linewidth=0.9, linestyle="--")
    if theory is not None:
        _mark_limits(panel, theory)
    panel.axhline(0.0, color="black", linewidth=0.5, zorder=0)
    panel.set(xlabel="draws later", ylabel="overlap", ylim=(-0.15, 1.08))
    add_legend(panel, "center right", fontsize=7.0, handlelength=1.6)


def _mark_limits(panel: Axes, theory: MeanFieldSolution) -> None:
    """What is left at last, to the right of the panel: a column a layer, for limits are often equal."""
    for layer in range(1, theory.model.n_hidden_layers + 1):
        k = (layer - 1) % len(PALETTE)
        panel.plot(
            [0.99 + 0.06 * layer],
            [overlap_limit(theory, layer)],
            MARKERS[k],
            color=PALETTE[k],
            fillstyle="none",
            markersize=5.0,
            transform=panel.get_yaxis_transform(),
            clip_on=False,
            label="theory, at last" if layer == 1 else None,
        )


def _draw_snapshots(before: Axes, after: Axes, trajectory: "PosteriorSamples", n_strongest: int) -> None:
    """The same neurons in the same order and colours, in the first and the last draw."""
    layer = trajectory.model.n_hidden_layers
    first, last = trajectory.activations(layer)[0, [0, -1]]
    order = _order(trajectory, first, n_strongest)
    images = [draw_neurons(panel, trajectory, phi[order]) for panel, phi in ((before, first), (after, last))]
    ends = np.array([image.get_clim() for image in images])
    common = Normalize(ends[:, 0].min(), ends[:, 1].max())
    for panel, image in zip((before, after), images, strict=True):
        image.set_norm(common)
        image.set_cmap(images[int(ends[:, 0].argmin())].get_cmap())
        panel.set_yticks([])
        add_slim_colours(panel, image)


def _order(trajectory: "PosteriorSamples", activations: Array, n_strongest: int) -> Integers:
    phi, labels = trajectory.model.nonlinearity, trajectory.model.task.labels
    if not (phi.is_linear or phi.is_bounded):
        return strongest(trajectory, activations, min(n_strongest, len(activations)))[0]
    if phi.is_linear or labels is None:
        return leading_order(activations)
    codes = find_codes(activations, labels=labels)
    return codes.order if codes.is_discrete else by_class(codes.class_means)


def _name(axes: NDArray[Any], rows: "tuple[PosteriorSamples, ...]") -> None:
    for line, row in zip(axes, rows, strict=True):
        layer = row.model.n_hidden_layers
        line[0].set_title(f"layer {layer}, first draw")
        line[1].set_title(f"{row.n_draws - 1} draws later")
        line[2].set_title("overlap of each layer")
        line[0].set_ylabel(f"{name_of(row.model)}\nneurons, ordered")
