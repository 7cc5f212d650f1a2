"""The composed figures, from posterior to image."""

from collections.abc import Callable, Sequence
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fltheory.figures.cases import DEEP, SCALINGS, SHALLOW
from fltheory.figures.workshop import Workshop
from fltheory.numerics.validation import check_choice, check_flag, check_integer, check_sequence, describe
from fltheory.plotting import plot_coding_schemes, plot_drift, plot_overview, plot_readouts

_RESOLUTION = 130  # dots an inch


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, NDArray[Any]]:
    """A figure with axes of this size in inches, rows of columns."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False))


def _coding_schemes(workshop: Workshop) -> Figure:
    figure, axes = _figure(len(DEEP), 6, 1.95, 2.1)
    networks, theories = [workshop.networks(c) for c in DEEP], [workshop.theory(c) for c in DEEP]
    plot_coding_schemes(*networks, theories=theories, ax=axes)
    return figure


def _overview(workshop: Workshop) -> Figure:
    figure, axes = _figure(len(SCALINGS), 4, 2.6, 2.4)
    networks, theories = [workshop.networks(c) for c in SCALINGS], [workshop.theory(c) for c in SCALINGS]
    plot_overview(*networks, theories=theories, ax=axes)
    return figure


def _drift(workshop: Workshop) -> Figure:
    figure, axes = _figure(len(DEEP), 3, 2.6, 2.2)
    trajectories, theories = [workshop.trajectory(c) for c in DEEP], [workshop.theory(c) for c in DEEP]
    plot_drift(*trajectories, theories=theories, ax=axes)
    return figure


def _readouts(workshop: Workshop) -> Figure:
    figure, axes = _figure(2, len(SHALLOW), 3.1, 2.7)
    networks, theories = [workshop.networks(c) for c in SHALLOW], [workshop.theory(c) for c in SHALLOW]
    plot_readouts(networks, theories, output=0, ax=axes[0])
    plot_readouts(networks, theories, output=(0, 1), ax=axes[1])
    for panel, network in zip(axes[0], networks, strict=True):
        panel.title.set_text(f"{type(network.model.nonlinearity).__name__}, {panel.get_title()}")
    return figure


_DRAWN: dict[str, Callable[[Workshop], Figure]] = {
    "coding_schemes": _coding_schemes,
    "overview": _overview,
    "drift": _drift,
    "readouts": _readouts,
}
NAMES = tuple(_DRAWN)


def compute_figure(
    name: str,
    quick: bool = False,
    seed: int = 0,
    checkpoint: "str | PathLike[str] | None" = None,
    progress: bool | None = None,
    report: Callable[[str], object] = str,
) -> Figure:
    """One of the composed figures, from posterior to image.

    Parameters
    ----------
    name
        "coding_schemes": activations and kernels of three hidden layers for linear, sigmoidal and ReLU
        networks; "overview": lazy and non-lazy networks; "drift": the same deep networks in time;
        "readouts": the readout weights of one hidden layer.
    quick
        Whether to compute small versions, in seconds, which show how the figure is made and no more.
    seed
        Of everything random.
    checkpoint
        A folder where networks are saved on the way; the same call goes on from there.
    progress
        Whether to show progress bars; None: on a terminal.
    report
        Called with a line on each step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    CheckpointError
        If ``checkpoint`` holds another run, naming what differs, or is damaged.
    """
    check_choice("name", name, NAMES)
    folder = None if checkpoint is None else _check_folder("checkpoint", checkpoint)
    return _DRAWN[name](_workshop(folder, quick, seed, progress, report))


def write_figures(
    output: "str | PathLike[str]",
    names: Sequence[str] = NAMES,
    quick: bool = False,
    seed: int = 0,
    progress: bool | None = None,
    report: Callable[[str], object] = str,
) -> tuple[Path, ...]:
    """Compute composed figures and write them to a folder, which is made if there is none.

    Networks are saved in its folder ``networks``: the same call goes on from there.

    Parameters
    ----------
    output
        The folder.
    names
        Which figures; all four by default.
    quick, seed, progress, report
        As in ``compute_figure``.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    TypeError, ValueError, CheckpointError
        As ``compute_figure``.
    """
    names = check_sequence("names", names, check_choice, choices=NAMES)
    folder = _check_folder("output", output)
    workshop = _workshop(folder / "networks", quick, seed, progress, report)
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"{name}.png" for name in names)
    for name, file in zip(names, files, strict=True):
        _DRAWN[name](workshop).savefig(file, dpi=_RESOLUTION)
        report(f"figure: {file}")
    return files


def _workshop(
    folder: Path | None, quick: object, seed: object, progress: object, report: Callable[[str], object]
) -> Workshop:
    is_quick: bool = check_flag("quick", quick)
    seed = check_integer("seed", seed, minimum=0)
    return Workshop(folder, is_quick, seed, check_flag("progress", progress, optional=True), report)


def _check_folder(name: str, value: object) -> Path:
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name}: expected the path of a folder, got {describe(value)}")
    path = Path(fsdecode(value))
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name}: expected the path of a folder, got the file {path}")
    return path
