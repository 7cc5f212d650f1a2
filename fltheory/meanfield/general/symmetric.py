"""Symmetric matrices (r, r) as vectors of k = r (r + 1) / 2 coordinates, with the same scalar product."""

from functools import cache

import numpy as np

from fltheory.numerics.validation import Array


def n_coordinates(size: int) -> int:
    """k."""
    return size * (size + 1) // 2


@cache
def unit_matrices(size: int) -> Array:
    """The matrix of each coordinate, (k, r, r)."""
    rows, columns = np.triu_indices(size)
    units = np.zeros((len(rows), size, size))
    index = np.arange(len(rows))
    scale = np.where(rows == columns, 1.0, np.sqrt(0.5))
    units[index, rows, columns] = units[index, columns, rows] = scale
    return units


def coordinates(matrices: Array) -> Array:
    """(..., r, r) to (..., k)."""
    return np.asarray(np.einsum("...ij,kij->...k", matrices, unit_matrices(matrices.shape[-1])))


def matrix(vector: Array, size: int) -> Array:
    """(k,) to (r, r)."""
    return np.asarray(np.tensordot(vector, unit_matrices(size), 1))
