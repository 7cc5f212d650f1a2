"""Weighted samples."""

from fltheory.numerics.validation import Array


def relative_ess(weights: Array) -> float:
    """Effective sample size over the number of samples, of weights (n,) that sum to 1."""
    return float(1.0 / (len(weights) * (weights**2).sum()))
