"""Averages over the draws of each chain, updated draw by draw at constant memory."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fltheory.numerics.validation import Array

SPREAD = "/spread"  # follows the name of a mean: sum of squared deviations from it


def updated(
    means: Mapping[str, Tensor], values: Mapping[str, Tensor], spreading: Mapping[str, Tensor], n_draws: int
) -> dict[str, Tensor]:
    """The averages after one more draw. The old ones are left as they are, so that a run can stop anywhere.

    Parameters
    ----------
    means
        Over ``n_draws`` draws; may be empty if that is 0.
    values
        Of the new draw, (C, ...), of which the mean is kept.
    spreading
        The same, but the sum of squared deviations is kept too (Welford 1962).
    """
    every = {**values, **spreading}
    if n_draws == 0:
        zeros = {name + SPREAD: torch.zeros_like(value) for name, value in spreading.items()}
        return {**every, **zeros}
    found = {name: torch.lerp(means[name], value, 1.0 / (n_draws + 1)) for name, value in every.items()}
    for name, value in spreading.items():
        growth = (value - means[name]) * (value - found[name])
        found[name + SPREAD] = means[name + SPREAD] + growth
    return found


def pooled_variance(mean: Array, spread: Array, n_draws: int) -> Array:
    """The variance over chains and draws, (...), from the mean and spread of each chain, (C, ...)."""
    return np.asarray(spread.mean(0) / n_draws + mean.var(0))
