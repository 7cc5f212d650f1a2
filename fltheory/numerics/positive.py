"""Positive matrices: Cholesky factors of many, and W W^T + blocks without writing it out."""

from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.numerics.validation import Array, Booleans

_RANK_CUT = 1e-10  # relative eigenvalue that counts as zero


def cholesky_batch(matrices: Array) -> tuple[Array, Booleans]:
    """Lower Cholesky factors (B, n, n), and which of the matrices (B, n, n) have one, (B,).

    Where numpy raises if any fails; the factor of one that fails is the identity.
    """
    factors, positive = np.empty_like(matrices), np.zeros(len(matrices), dtype=bool)
    for index, matrix in enumerate(matrices):
        factor, info = linalg.lapack.dpotrf(matrix, lower=True)
        positive[index] = info == 0 and bool(np.isfinite(factor).all())
        factors[index] = factor if positive[index] else np.eye(len(matrix))
    return factors, positive


def whiten_batch(factors: Array, right: Array) -> Array:
    """L^{-1} b for lower triangular L (B, n, n) and one b (n, k): (B, n, k)."""
    white = np.empty((len(factors), *right.shape))
    for index, factor in enumerate(factors):
        white[index] = linalg.lapack.dtrtrs(factor, right, lower=True)[0]
    return white


def kernel_factor(kernel: Array) -> Array:
    """F (P, q) with K = F F^T, q the rank of the kernel K (P, P)."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > _RANK_CUT * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def symmetric_root(kernel: Array) -> Array:
    """The positive root of K (P, P), which is smooth in K."""
    values, vectors = np.linalg.eigh(kernel)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


@frozen(eq=False)
class LowRankPlusBlocks:
    """A = W W^T + diag(B_1, ..., B_P), acting on arrays of shape (P, m).

    Attributes
    ----------
    factor
        W, shape (P m, r).
    blocks
        B, positive definite, shape (P, m, m).
    """

    factor: Array
    blocks: Array

    def solve(self, right: Array) -> Array:
        """A^{-1} b for b of shape (P, m) or (P, m, k): Woodbury if r < P m / 2, else Cholesky."""
        flat = right.reshape(len(self.factor), -1)
        if self._is_wide:
            return linalg.cho_solve(self._dense, flat).reshape(right.shape)
        near = self._solve_blocks(flat)
        inner = linalg.cho_solve(self._capacitance, self.factor.T @ near)
        return (near - self._blocks_inverse_factor @ inner).reshape(right.shape)

    def inverse_diagonal(self) -> Array:
        """The diagonal of A^{-1}, (P, m), never holding more than W and a few of its columns."""
        n, m = self.blocks.shape[:2]
        if self._is_wide:
            columns = np.eye(n * m)
            slices = np.array_split(columns, max(1, n * m // 256))
            diagonal = [(part * linalg.cho_solve(self._dense, part.T).T).sum(1) for part in slices]
            return np.concatenate(diagonal).reshape(n, m)
        local = np.diagonal(np.linalg.inv(self.blocks), axis1=1, axis2=2)
        root, lower = self._capacitance
        white = linalg.solve_triangular(root, self._blocks_inverse_factor.T, lower=lower)
        return np.asarray(local - (white**2).sum(0).reshape(n, m))

    @property
    def _is_wide(self) -> bool:
        return bool(2 * self.factor.shape[1] >= len(self.factor))

    @cached_property
    def _dense(self) -> tuple[Array, bool]:
        n, m = self.blocks.shape[:2]
        matrix = self.factor @ self.factor.T
        index = np.arange(n)
        matrix.reshape(n, m, n, m)[index, :, index, :] += self.blocks
        return linalg.cho_factor(matrix, lower=True, overwrite_a=True)

    def _solve_blocks(self, flat: Array) -> Array:
        n, m = self.blocks.shape[:2]
        return np.asarray(np.linalg.solve(self.blocks, flat.reshape(n, m, -1)).reshape(flat.shape))

    @cached_property
    def _blocks_inverse_factor(self) -> Array:
        return self._solve_blocks(self.factor)

    @cached_property
    def _capacitance(self) -> tuple[Array, bool]:
        matrix = self.factor.T @ self._blocks_inverse_factor
        matrix[np.diag_indices_from(matrix)] += 1.0
        return linalg.cho_factor(matrix, lower=True, overwrite_a=True)
