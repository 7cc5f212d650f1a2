"""The four composed figures: what is computed for each, from posterior to image."""

from fltheory.figures.composed import (
    NAMES as NAMES,
    compute_figure as compute_figure,
    write_figures as write_figures,
)
