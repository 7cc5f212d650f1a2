"""What the neurons do, layer by layer: the central figure."""

from typing import Any

from matplotlib.axes import Axes
from numpy.typing import NDArray

from fltheory.numerics.validation import check_instance, check_integer, check_sequence
from fltheory.plotting.activations import draw_activations
from fltheory.plotting.kernels import draw_kernel
from fltheory.plotting.style import add_slim_colours, check_theories, grid, name_of, styled
from fltheory.representation import Representation

_SIZE = (1.95, 2.15)  # inches a panel


def plot_coding_schemes(
    *representations: Representation,
    theories: object = None,
    n_strongest: int = 9,
    seed: int = 0,
    ax: object = None,
) -> NDArray[Any]:
    """The activations of one network and the kernels of all, in every layer; one row a representation.

    Each panel has a colour scale of its own, so that structure shows in every layer.

    Parameters
    ----------
    representations
        Samples (or solutions of the theory), all of the same depth L.
    theories
        A ``MeanFieldSolution`` for each of them, or None where there is none: its kernels are shown
        above the diagonal, those of the representation below.
    n_strongest
        Where phi is nonlinear with a slope at infinity few neurons carry the code: so many are shown, the
        most active of each layer.
    seed
        Of the choice of the network that is shown.
    ax
        As many rows of 2 L axes as representations; a new figure if None.

    Returns
    -------
    ndarray
        The axes, (rows, 2 L): activations of layers 1 to L, then kernels.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    rows = check_sequence("representations", representations, check_instance, kind=Representation)
    depth = _check_depths(rows)
    own = check_theories("theories", theories, rows)
    n_strongest, seed = check_integer("n_strongest", n_strongest), check_integer("seed", seed, minimum=0)
    with styled():
        axes = grid(ax, len(rows), 2 * depth, _SIZE)
        for line, representation, theory in zip(axes, rows, own, strict=True):
            for layer in range(1, depth + 1):
                _draw_layer(line[layer - 1], representation, layer, n_strongest, seed)
                image, _ = draw_kernel(line[depth + layer - 1], representation, theory, layer)
                add_slim_colours(line[depth + layer - 1], image)
        _name(axes, rows, depth)
    return axes


def _check_depths(rows: tuple[Representation, ...]) -> int:
    depths = [row.model.n_hidden_layers for row in rows]
    if len(set(depths)) > 1:
        raise ValueError(f"representations: expected the same number of layers for all, got {depths}")
    return depths[0]


def _draw_layer(panel: Axes, row: Representation, layer: int, n_strongest: int, seed: int) -> None:
    phi, width = row.model.nonlinearity, row.model.width
    shown = None if phi.is_bounded or phi.is_linear else min(n_strongest, width)
    image, _, what = draw_activations(panel, row, layer, width, seed, shown)
    panel.set_yticks([])
    panel.set_ylabel(what if layer == 1 else "")
    add_slim_colours(panel, image)


def _name(axes: NDArray[Any], rows: tuple[Representation, ...], depth: int) -> None:
    """Layers above, nonlinearities on the left, classes below."""
    for layer in range(1, depth + 1):
        axes[0, layer - 1].set_title(f"activations, layer {layer}")
        axes[0, depth + layer - 1].set_title(f"kernel, layer {layer}")
    for line, row in zip(axes, rows, strict=True):
        line[0].set_ylabel(f"{name_of(row.model)}\n{line[0].get_ylabel()}")
    for panel in axes[:-1].ravel():
        panel.set_xlabel("")
