"""How a solver of the theory went to its solution."""

import numpy as np
from matplotlib.axes import Axes

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import Array, check_instance, check_sequence
from fltheory.plotting.style import MARKERS, PALETTE, add_legend, panels, styled


def plot_convergence(*theories: MeanFieldSolution, ax: object = None) -> Axes:
    """The distance of the action from its last value, step by step; straight down is quadratic.

    That is S for one hidden layer and J for several, where a solution may be followed from a higher N T.

    Parameters
    ----------
    theories
        Solutions of a solver that took steps: ``action_path`` of at least two.
    ax
        Axes to draw on; a new figure if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    check_sequence("theories", theories, check_instance, kind=MeanFieldSolution)
    paths = [_path(f"theories[{k}]", theory) for k, theory in enumerate(theories)]
    with styled():
        panel: Axes = panels(ax, 1)[0]
        for k, (theory, path) in enumerate(zip(theories, paths, strict=True)):
            name = f"{type(theory.model.nonlinearity).__name__}, $L = {theory.model.n_hidden_layers}$"
            line = {
                "color": PALETTE[k % len(PALETTE)],
                "marker": MARKERS[k % len(MARKERS)],
                "markersize": 3.5,
            }
            panel.semilogy(np.arange(len(path)), path, linewidth=0.9, label=name, **line)
        add_legend(panel, handlelength=1.6)
        letters = sorted({"S" if theory.model.n_hidden_layers == 1 else "J" for theory in theories})
        distances = ", ".join(rf"$|{s} - {s}_{{\mathrm{{last}}}}|$" for s in reversed(letters))
        panel.set(xlabel="step of the solver", ylabel=distances)
    return panel


def _path(name: str, theory: MeanFieldSolution) -> Array:
    """|S_k - S_last| for all steps but the last, at least the rounding error of S."""
    path = np.array(theory.action_path, dtype=np.float64)
    if len(path) < 2:
        raise ValueError(
            f"{name}: expected a solution with an action_path of at least two steps, got {len(path)} "
            f"(method {theory.method!r})"
        )
    rounding = np.finfo(np.float64).eps * np.abs(path).max()
    return np.asarray(np.maximum(np.abs(path[:-1] - path[-1]), rounding))
