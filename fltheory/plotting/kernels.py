"""The kernel of a layer: how similar the representations of two inputs are."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import Array, check_instance
from fltheory.plotting.style import (
    BOUNDARIES,
    KERNELS,
    add_colours,
    mark_classes,
    name_of_answer,
    panels,
    scale,
    styled,
    title_of,
)
from fltheory.representation import Representation


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
    with styled():
        axes = panels(ax, len(kernels))
        # Pairs of different inputs set the scale: the diagonal can be far above.
        norm, colours = scale(np.concatenate([off_diagonal(kernel) for kernel in kernels]), KERNELS)
        for panel, representation, kernel in zip(axes, representations, kernels, strict=True):
            image = panel.imshow(kernel, norm=norm, cmap=colours)
            panel.set_title(title_of(representation))
            mark_classes(panel, representation.model, colours, "x")
            mark_classes(panel, representation.model, colours, "y", named=panel is axes[0])
        add_colours(axes, image, kernels, f"kernel $K_{{{layer}}}$")
    return axes


def draw_kernel(
    panel: Axes, representation: Representation, theory: MeanFieldSolution | None, layer: int
) -> tuple[AxesImage, Array]:
    """The kernel of a representation, with that of the theory above the diagonal if there is one."""
    kernel = representation.kernel(layer)
    if theory is not None:
        kernel = np.tril(kernel) + np.triu(theory.kernel(layer), 1)
    norm, colours = scale(off_diagonal(kernel), KERNELS)
    image = panel.imshow(kernel, norm=norm, cmap=colours, aspect="auto")
    for which in ("x", "y"):
        mark_classes(panel, representation.model, colours, which, named=which == "x")
    if theory is not None:
        _name_halves(panel, BOUNDARIES[colours], name_of_answer(theory), name_of_answer(representation))
    return image, kernel


def _name_halves(panel: Axes, colour: str, upper: str, lower: str) -> None:
    panel.axline((0.0, 0.0), slope=1.0, color=colour, linewidth=0.5)
    around = withStroke(linewidth=1.5, foreground="black" if colour == "white" else "white")
    where: dict[str, Any] = {"transform": panel.transAxes, "color": colour, "path_effects": [around]}
    panel.text(0.97, 0.96, upper, ha="right", va="top", fontsize=7.0, **where)
    panel.text(0.03, 0.04, lower, ha="left", va="bottom", fontsize=7.0, **where)


def off_diagonal(kernel: Array) -> Array:
    """The entries for different inputs, all entries if there is only one."""
    return kernel[~np.eye(len(kernel), dtype=bool)] if len(kernel) > 1 else kernel.ravel()
