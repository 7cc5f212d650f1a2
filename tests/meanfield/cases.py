"""Small posteriors for the tests of the theory."""

from hypothesis import settings

import fltheory as flt
from fltheory.testing.strategies import (
    gaussian_mixture as classification,
    seeds,
    solvable_posteriors as posteriors,
)

__all__ = ["classification", "few", "posterior", "posteriors", "seeds"]

few = settings(max_examples=max(4, settings().max_examples // 5))  # each solves several posteriors


def posterior(
    task: flt.Task,
    scaled_temperature: float = 0.1,
    nonlinearity: flt.Nonlinearity | None = None,
    width: int = 100,
) -> flt.DeepNetworkPosterior:
    """A posterior at a given N T, with sigma_a^2 = 1 / P."""
    phi = flt.Sigmoid() if nonlinearity is None else nonlinearity
    return flt.DeepNetworkPosterior(task, phi, width=width, temperature=scaled_temperature / width)
