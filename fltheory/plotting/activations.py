"""The neurons of a layer against the inputs, in an order in which their code shows."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from fltheory.coding import find_codes, leading_order
from fltheory.numerics.validation import Array, Integers, check_instance, check_integer
from fltheory.plotting.style import (
    ACTIVATIONS,
    BOUNDARIES,
    add_colours,
    mark_classes,
    panels,
    scale,
    styled,
    title_of,
)
from fltheory.representation import Representation, class_means

_Order = tuple[Integers, list[int], str]  # neurons in order, where groups end in it, and what it is


def plot_activations(
    representation: Representation,
    layer: int = 1,
    n: int | None = None,
    seed: int = 0,
    n_strongest: int | None = None,
    ax: object = None,
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
    n_strongest
        Show only so many of them, the most active ones, ordered by the class on which each is most
        active: where a few neurons of many carry the code, as with ReLU. None: all.
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
    if n_strongest is not None:
        n_strongest = check_integer("n_strongest", n_strongest, maximum=n)
    with styled():
        axes = panels(ax, 1)
        panel: Axes = axes[0]
        image, activations, what = draw_activations(panel, representation, layer, n, seed, n_strongest)
        panel.set_ylabel(what)
        panel.set_title(title_of(representation, networks="one network"))
        add_colours(axes, image, [activations], rf"activation $\phi(z^{{{layer}}})$")
    return panel


def draw_activations(
    panel: Axes,
    representation: Representation,
    layer: int,
    n: int,
    seed: int,
    n_strongest: int | None,
) -> tuple[AxesImage, Array, str]:
    """The image, all that it shows, and what its rows are."""
    activations = representation.neurons(n, layer, seed).activations
    if n_strongest is None:
        order, ends, what = _by_code(representation, activations, layer, seed)
    else:
        order, ends, what = strongest(representation, activations, n_strongest)
    image = draw_neurons(panel, representation, activations[order])
    for end in ends[:-1]:
        panel.axhline(end - 0.5, color=BOUNDARIES[str(image.get_cmap().name)], linewidth=0.8)
    return image, activations[order], what


def draw_neurons(panel: Axes, representation: Representation, activations: Array) -> AxesImage:
    """Activations (n, P) as an image, with the classes of the inputs."""
    norm, colours = scale(activations.ravel(), ACTIVATIONS)
    image = panel.imshow(activations, norm=norm, cmap=colours, aspect="auto")
    mark_classes(panel, representation.model, colours, "x")
    return image


def _by_code(representation: Representation, activations: Array, layer: int, seed: int) -> _Order:
    """By code; nothing ends where there are no discrete codes."""
    model = representation.model
    if model.task.labels is None or model.nonlinearity.is_linear:
        return leading_order(activations), [], "neurons, ordered"
    codes = find_codes(representation, layer, len(activations), seed)
    if not codes.is_discrete:
        return by_class(codes.class_means), [], "neurons, ordered"
    return codes.order, np.cumsum(np.bincount(codes.members)).tolist(), "neurons, by code"


def by_class(means: Array) -> Integers:
    """By the classes on which neurons with means (n, n_classes) are more active than most."""
    above = means > np.median(means)
    pattern = above @ (1 << np.arange(means.shape[1])[::-1])
    return np.lexsort((-means.sum(1), -pattern))


def strongest(representation: Representation, activations: Array, count: int) -> _Order:
    """The neurons with the largest mean on a class, by that class; without labels, by size."""
    labels = representation.model.task.labels
    if labels is None:
        strength, group = np.sqrt((activations**2).mean(1)), np.zeros(len(activations), np.int64)
    else:
        means = np.abs(class_means(activations, labels))
        strength, group = means.max(1), means.argmax(1)
    chosen = np.argsort(-strength, kind="stable")[:count]
    order = chosen[np.lexsort((-strength[chosen], group[chosen]))]
    ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1
    return order, ends.tolist(), f"{count} most active neurons"
