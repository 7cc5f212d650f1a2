"""What figures share: letters, colours, axes, and where classes begin."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import Array, check_instance, check_sequence, describe
from fltheory.representation import Representation

if TYPE_CHECKING:  # torch is not needed to plot a theory
    from fltheory.network.samples import PosteriorSamples

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "image.interpolation": "nearest",
}
THEORY, NETWORKS = "#c1272d", "0.6"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by all eyes
MARKERS = ("o", "s", "^", "D", "v", "P")
KERNELS, ACTIVATIONS, SIGNED = "magma", "gray_r", "RdBu_r"
BOUNDARIES = {KERNELS: "white", ACTIVATIONS: "#e39b1c", SIGNED: "black"}  # seen on these colours
_PERCENTILE, _OUTLYING = 99.5, 1.3  # a colour scale ends there if the largest value is that far above
_MOST_NAMES = 12  # of classes along an axis


def name_of_answer(representation: Representation) -> str:
    """How a figure calls it."""
    if not isinstance(representation, MeanFieldSolution):
        return "networks"
    return "theory at these shares" if representation.has_imposed_codes else "theory"


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, and leave settings as they were.

    But for one: the first figure of all makes a notebook interactive, which it has to stay to show the next.
    """
    with mpl.rc_context(STYLE):
        yield
        is_interactive = mpl.is_interactive()
    mpl.interactive(is_interactive)


def panels(ax: object, count: int) -> NDArray[Any]:
    """``count`` axes: those given, or those of a new figure."""
    if ax is None:
        _, new = plt.subplots(1, count, squeeze=False, figsize=(0.8 + 3.0 * count, 3.0), layout="constrained")
        return np.asarray(new[0])
    axes = np.array(ax, dtype=object).ravel()
    if len(axes) != count or not all(isinstance(panel, Axes) for panel in axes):
        wanted = "matplotlib axes" if count == 1 else f"{count} matplotlib axes"
        raise TypeError(f"ax: expected {wanted}, got {describe(ax)}")
    return axes


def grid(ax: object, rows: int, columns: int, size: tuple[float, float]) -> NDArray[Any]:
    """``rows`` times ``columns`` axes: those given, or those of a new figure, ``size`` inches each."""
    if ax is not None:
        return panels(ax, rows * columns).reshape(rows, columns)
    whole = (columns * size[0], rows * size[1])
    _, new = plt.subplots(rows, columns, squeeze=False, figsize=whole, layout="constrained")
    return np.asarray(new)


def title_of(representation: Representation, networks: str = "networks") -> str:
    """Which answer it is."""
    if isinstance(representation, MeanFieldSolution):
        return rf"{name_of_answer(representation)}, $N \to \infty$"
    return f"{networks}, $N = {representation.model.width}$"


def scale(values: Array, rising: str) -> tuple[Normalize, str]:
    """Colours that rise from 0 or, for values of both signs, diverge from it."""
    size = np.abs(values)
    common, largest = float(np.percentile(size, _PERCENTILE)), float(size.max())
    end = (common if largest > _OUTLYING * common else largest) or 1.0
    if values.min() < -0.02 * end:
        return Normalize(-end, end), SIGNED
    return Normalize(0.0, end), rising


def add_colours(axes: NDArray[Any], image: AxesImage, arrays: list[Array], label: str) -> None:
    """A colour bar for all axes, with arrows where values lie outside."""
    low, high = image.get_clim()
    outside = any(array.min() < low - 1e-9 for array in arrays), any(array.max() > high for array in arrays)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = axes[0].figure.colorbar(image, ax=list(axes), extend=extend[outside], shrink=0.85, aspect=24)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def add_slim_colours(panel: Axes, image: AxesImage) -> None:
    """A colour bar for one panel of many: its ends, and zero between."""
    low, high = image.get_clim()
    bar = panel.figure.colorbar(image, ax=panel, aspect=30, pad=0.03, fraction=0.06)
    ticks = [0.0, high] if low >= 0.0 else [low, 0.0, high]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7.0, length=2.0, pad=1.5)
    bar.outline.set_linewidth(0.4)


def name_of(model: Model) -> str:
    """The nonlinearity of a network, and its sizes."""
    depth = model.n_hidden_layers
    name = type(model.nonlinearity).__name__
    return f"{name}, $L = {depth}$\n$N = {model.width}$, $P = {model.task.n_samples}$"


def mark_classes(panel: Axes, model: Model, colours: str, which: str, *, named: bool = True) -> None:
    """Boundaries where the class changes along the axis "x" or "y" and, if ``named``, the classes."""
    labels = model.task.labels
    axis, line = (panel.xaxis, panel.axvline) if which == "x" else (panel.yaxis, panel.axhline)
    starts = np.zeros(1, int) if labels is None else np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    for start in starts[1:]:
        line(start - 0.5, color=BOUNDARIES[colours], linewidth=0.8)
    if not named:
        axis.set_ticks([])
        return
    axis.set_label_text("inputs" if labels is None else "inputs, by class")
    if labels is not None and len(starts) <= _MOST_NAMES:
        ends = np.append(starts[1:], len(labels))
        axis.set_ticks((starts + ends - 1) / 2, [str(labels[i]) for i in starts])
        axis.set_tick_params(length=0)


def add_legend(panel: Axes, loc: str = "upper right", **options: Any) -> None:
    """At a fixed place, over what is there: to look for the best one takes long among many points."""
    settings: dict[str, Any] = {"framealpha": 0.6, "edgecolor": "none", "borderpad": 0.2, "handlelength": 1.2}
    settings |= {"loc": loc, **options}
    panel.legend(**settings)


def add_legend_above(panel: Axes) -> None:
    """At the upper right, with room made for it above what is drawn."""
    low, high = panel.get_ylim()
    stretch = 1.12 + 0.1 * len(panel.get_legend_handles_labels()[0])
    is_log = panel.get_yscale() == "log"
    top = low * (high / low) ** stretch if is_log else low + (high - low) * stretch
    panel.update_datalim(np.array([[np.mean(panel.get_xlim()), top]]))
    panel.autoscale_view(scalex=False)
    add_legend(panel, fontsize=7.0)


# Arguments ---------------------------------------------------------------------------------------


def check_answer(name: str, value: object) -> "PosteriorSamples | MeanFieldSolution":
    """Samples, or a solution of the theory."""
    if isinstance(value, MeanFieldSolution):
        return value
    from fltheory.network.samples import PosteriorSamples

    samples: PosteriorSamples = check_instance(name, value, PosteriorSamples)
    return samples


def check_theory(name: str, value: object, model: Model) -> MeanFieldSolution | None:
    """A solution, or None, for networks of this shape."""
    theory: MeanFieldSolution | None = check_instance(name, value, MeanFieldSolution, optional=True)
    if theory is not None and (got := _shape(theory.model)) != (wanted := _shape(model)):
        raise ValueError(f"{name}: expected a theory of {wanted}, got one of {got}")
    return theory


def check_theories(
    name: str, value: object, rows: Sequence[Representation]
) -> tuple[MeanFieldSolution | None, ...]:
    """One solution, or None, for each of ``rows``; None: no theory for any."""
    if value is None:
        return (None,) * len(rows)
    theories = check_sequence(name, value, check_instance, kind=MeanFieldSolution, optional=True)
    if len(theories) != len(rows):
        raise ValueError(f"{name}: expected {len(rows)}, one for each of the samples, got {len(theories)}")
    return tuple(
        check_theory(f"{name}[{k}]", theory, row.model)
        for k, (theory, row) in enumerate(zip(theories, rows, strict=True))
    )


def check_alone(name: str, theory: MeanFieldSolution | None, row: Representation) -> None:
    """None beside a row that is a theory itself."""
    if theory is not None and isinstance(row, MeanFieldSolution):
        raise ValueError(f"{name}: expected None beside a theory, which is shown alone; got another")


def _shape(model: Model) -> str:
    task = model.task
    return f"{model.n_hidden_layers} layers, {task.n_samples} inputs and {task.n_outputs} outputs"
