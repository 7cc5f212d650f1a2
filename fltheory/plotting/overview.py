"""Lazy and non-lazy networks side by side."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fltheory.coding import kernel_alignment
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import check_integer, check_sequence
from fltheory.plotting.activations import draw_activations
from fltheory.plotting.kernels import draw_kernel
from fltheory.plotting.readouts import plot_readouts
from fltheory.plotting.style import (
    NETWORKS,
    THEORY,
    add_legend,
    add_slim_colours,
    check_alone,
    check_answer,
    check_theories,
    grid,
    name_of,
    name_of_answer,
    styled,
)
from fltheory.representation import Representation

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

_SIZE = (2.6, 2.4)  # inches a panel


def plot_overview(
    *representations: "PosteriorSamples | MeanFieldSolution",
    theories: object = None,
    seed: int = 0,
    ax: object = None,
) -> NDArray[Any]:
    """What learning does to the last layer, one row a posterior: lazy and non-lazy, as a rule.

    Activations of one network, the kernel, readout weights to the first output, and how well the kernel
    of each layer is aligned with the targets, before learning and after.

    Parameters
    ----------
    representations
        Samples, or solutions of the theory alone, in the order of the rows.
    theories
        A ``MeanFieldSolution`` for each of the samples, or None where there is none: its kernel is shown
        above the diagonal, that of the networks below.
    seed
        Of the choice of the network that is shown.
    ax
        As many rows of 4 axes as representations; a new figure if None.

    Returns
    -------
    ndarray
        The axes, (rows, 4).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    rows = check_sequence("representations", representations, check_answer)
    own = check_theories("theories", theories, rows)
    for k, (theory, row) in enumerate(zip(own, rows, strict=True)):
        check_alone(f"theories[{k}]", theory, row)
    seed = check_integer("seed", seed, minimum=0)
    with styled():
        axes = grid(ax, len(rows), 4, _SIZE)
        for line, row, theory in zip(axes, rows, own, strict=True):
            _draw_row(line, row, theory, seed)
    return axes


def _draw_row(
    line: NDArray[Any],
    row: "PosteriorSamples | MeanFieldSolution",
    theory: MeanFieldSolution | None,
    seed: int,
) -> None:
    model, layer = row.model, row.model.n_hidden_layers
    image, _, what = draw_activations(line[0], row, layer, model.width, seed, None)
    add_slim_colours(line[0], image)
    scaling = "lazy" if model.is_lazy else "non-lazy"
    line[0].set(title=f"activations, layer {layer}", yticks=[], ylabel=f"{scaling}\n{name_of(model)}\n{what}")
    image, _ = draw_kernel(line[1], row, theory, layer)
    add_slim_colours(line[1], image)
    line[1].set_title(f"kernel, layer {layer}")
    plot_readouts(row, theory, output=0, ax=line[2])
    line[2].set_title("readout weights")
    _draw_alignments(line[3], row, theory)


def _draw_alignments(panel: Axes, row: Representation, theory: MeanFieldSolution | None) -> None:
    """Bars for each layer, before learning and after; the theory as diamonds."""
    layers = np.arange(1, row.model.n_hidden_layers + 1)
    found = [kernel_alignment(row, int(layer)) for layer in layers]
    before, after = [each.prior_alignment for each in found], [each.alignment for each in found]
    errors = [2.0 * (each.alignment_error or 0.0) for each in found]
    panel.bar(layers - 0.2, before, 0.38, color="0.85", label="before learning")
    panel.bar(layers + 0.2, after, 0.38, yerr=errors, color=NETWORKS, label=name_of_answer(row))
    if theory is not None:
        label = name_of_answer(theory)
        expected = [kernel_alignment(theory, int(layer)).alignment for layer in layers]
        panel.plot(layers + 0.2, expected, "D", color=THEORY, markersize=5, fillstyle="none", label=label)
    add_legend(panel, "upper left", fontsize=7.0)
    panel.set(ylim=(0.0, 1.7), xlim=(0.3, layers[-1] + 0.7), xticks=layers, yticks=(0.0, 0.5, 1.0))
    panel.set(xlabel="layer", ylabel="alignment with targets", title="kernel alignment")
