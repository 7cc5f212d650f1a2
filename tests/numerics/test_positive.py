"""Positive matrices against dense linear algebra, thin and wide."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose

from fltheory.numerics.positive import LowRankPlusBlocks, cholesky_batch


def random_matrix(seed, n, m, r):
    """W (n m, r), blocks (n, m, m) and the dense sum."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n * m, r))
    halves = rng.normal(size=(n, m, m))
    blocks = halves @ halves.mT + np.eye(m)
    dense = factor @ factor.T
    for i in range(n):
        dense[i * m : (i + 1) * m, i * m : (i + 1) * m] += blocks[i]
    return LowRankPlusBlocks(factor, blocks), dense


# The rank r decides between Woodbury (thin, r < n m / 2) and a dense factor (wide).
SHAPES = {
    "thin": (6, 3, 2),
    "one column": (5, 2, 1),
    "just thin": (5, 2, 4),
    "just wide": (5, 2, 5),
    "wide": (3, 2, 11),
    "scalar blocks": (7, 1, 2),
    "one block": (1, 4, 1),
    "several slices": (130, 4, 300),
}


@pytest.mark.parametrize(("n", "m", "r"), SHAPES.values(), ids=SHAPES.keys())
def test_low_rank_plus_blocks_is_the_dense_matrix(n, m, r):
    matrix, dense = random_matrix(0, n, m, r)
    inverse = np.linalg.inv(dense)
    right = np.random.default_rng(1).normal(size=(n, m, 3))
    flat = right.reshape(n * m, 3)
    assert_allclose(matrix.solve(right).reshape(n * m, 3), inverse @ flat, atol=1e-9)
    assert_allclose(matrix.solve(right[..., 0]), (inverse @ flat[:, 0]).reshape(n, m), atol=1e-9)
    assert_allclose(matrix.inverse_diagonal(), np.diagonal(inverse).reshape(n, m), atol=1e-9)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 3), st.integers(1, 12))
def test_solving_undoes_multiplying(seed, n, m, r):
    matrix, dense = random_matrix(seed, n, m, r)
    x = np.random.default_rng(seed).normal(size=(n, m))
    right = (dense @ x.ravel()).reshape(n, m)
    assert_allclose(matrix.solve(right), x, atol=1e-7)
    diagonal = matrix.inverse_diagonal()
    units = np.eye(n * m).reshape(n, m, n * m)
    assert_allclose(np.diagonal(matrix.solve(units).reshape(n * m, -1)), diagonal.ravel(), atol=1e-9)
    assert (diagonal > 0).all()


def test_both_regimes_agree():
    """Columns of zeros turn a thin matrix into a wide one."""
    thin, _ = random_matrix(3, 6, 2, 2)
    wide = LowRankPlusBlocks(np.pad(thin.factor, ((0, 0), (0, 10))), thin.blocks)
    assert not thin._is_wide and wide._is_wide
    right = np.random.default_rng(4).normal(size=(6, 2))
    assert_allclose(thin.solve(right), wide.solve(right), atol=1e-11)
    assert_allclose(thin.inverse_diagonal(), wide.inverse_diagonal(), atol=1e-11)


@given(st.integers(0, 1000))
def test_its_own_arrays_stay_as_they_are(seed):
    matrix, _ = random_matrix(seed, 4, 2, 1 + seed % 9)
    factor, blocks = matrix.factor.copy(), matrix.blocks.copy()
    right = np.ones((4, 2))
    first = matrix.solve(right)
    matrix.inverse_diagonal()
    assert_allclose(matrix.solve(right), first, atol=0)
    assert (matrix.factor == factor).all() and (matrix.blocks == blocks).all() and (right == 1).all()


# Cholesky factors --------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=8), st.integers(1, 5), st.integers(0, 1000))
def test_cholesky_batch_flags_what_is_not_positive(positive, n, seed):
    rng = np.random.default_rng(seed)
    matrices = np.empty((len(positive), n, n))
    for matrix, sign in zip(matrices, positive, strict=True):
        modes = np.linalg.qr(rng.normal(size=(n, n)))[0]
        values = rng.uniform(0.1, 2, n)
        values[0] *= 1 if sign else -1
        matrix[:] = (modes * values) @ modes.T
    kept = matrices.copy()
    factors, flags = cholesky_batch(matrices)
    assert flags.tolist() == positive and (matrices == kept).all()
    for factor, matrix, sign in zip(factors, matrices, positive, strict=True):
        if sign:
            assert_allclose(factor, np.linalg.cholesky(matrix), atol=1e-12)
        else:
            assert (factor == np.eye(n)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_cholesky_batch_flags_what_is_not_finite_or_singular(value):
    matrices = np.stack([np.eye(3), np.eye(3)])
    matrices[1, 1, 1] = value
    assert cholesky_batch(matrices)[1].tolist() == [True, False]
