"""The conjugate kernel of the first layer as few directions, a diagonal and a remainder."""

import numpy as np
from attrs import frozen

from fltheory.numerics.validation import Array

_SETTLED, _MOST_STEPS = 1e-7, 300  # of a factor analysis: change of d, relative


@frozen(eq=False)
class ConjugateKernel:
    """Kt = V c V^T + diag(d) + E.

    Attributes
    ----------
    directions
        V, orthonormal, (P, r).
    core
        c, symmetric, (r, r).
    diagonal
        d, (P,).
    remainder
        E, symmetric without a diagonal, (P, P).
    """

    directions: Array
    core: Array
    diagonal: Array
    remainder: Array

    @classmethod
    def of(cls, total: Array, directions: Array) -> "ConjugateKernel":
        """Split Kt (P, P) such that E has no diagonal and no part of V c V^T."""
        projector = directions @ directions.T
        own = np.diagonal(total) - ((projector @ total) * projector).sum(1)
        diagonal = np.linalg.solve(np.eye(len(total)) - projector**2, own)
        core = directions.T @ (total - np.diag(diagonal)) @ directions
        core = 0.5 * (core + core.T)
        remainder = total - directions @ core @ directions.T
        np.fill_diagonal(remainder, 0.0)
        return cls(directions, core, diagonal, 0.5 * (remainder + remainder.T))

    @property
    def total(self) -> Array:
        """Kt, (P, P)."""
        return self.directions @ self.core @ self.directions.T + np.diag(self.diagonal) + self.remainder

    @property
    def root(self) -> Array:
        """R (P, r) with R R^T the positive part of V c V^T."""
        values, vectors = np.linalg.eigh(self.core)
        return np.asarray(self.directions @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)

    def single(self) -> tuple[Array, Array]:
        """d and E with the negative part of V c V^T in them, which has no average over xi."""
        values, vectors = np.linalg.eigh(self.core)
        along = self.directions @ vectors
        negative = (along * np.minimum(values, 0.0)) @ along.T
        diagonal = self.diagonal + np.diagonal(negative)
        np.fill_diagonal(negative, 0.0)
        return diagonal, self.remainder + negative


def leading_directions(total: Array, n_directions: int, old: Array | None = None) -> Array:
    """V of the factor analysis of Kt (P, P): top eigenvectors of Kt - diag(d), (P, r).

    Turned towards ``old`` directions, so that latents change little.
    """
    diagonal = np.zeros(len(total))
    for _ in range(_MOST_STEPS):
        values, vectors = np.linalg.eigh(total - np.diag(diagonal))
        top = vectors[:, -n_directions:]
        low_rank = (top * np.maximum(values[-n_directions:], 0.0) * top).sum(1)
        change = np.abs(np.diagonal(total) - low_rank - diagonal).max()
        diagonal = np.diagonal(total) - low_rank
        if change < _SETTLED * np.abs(np.diagonal(total)).max():
            break
    if old is None:
        return np.asarray(top)
    left, _, right = np.linalg.svd(top.T @ old)
    return np.asarray(top @ left @ right)
