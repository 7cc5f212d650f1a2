"""Newton's method without derivatives, on textbook problems."""

import numpy as np
import pytest
from attrs import frozen

from fltheory.numerics.roots import find_root


@frozen(eq=False)
class Value:
    residual: np.ndarray


def solve(function, start, **settings):
    def evaluate(x, near):
        value = function(x)
        return None if value is None else Value(value)

    start = np.asarray(start, dtype=float)
    return find_root(evaluate, start, Value(function(start)), **{"tolerance": 1e-10, **settings})


def powell(x):
    """Powell's badly scaled function: root at (1.098e-5, 9.106)."""
    return np.array([1e4 * x[0] * x[1] - 1.0, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def test_linear_equations_take_one_step():
    matrix = np.array([[2.0, 1.0], [0.0, 3.0]])
    root = solve(lambda x: matrix @ x - 1.0, [0.0, 0.0], max_step=10.0)
    np.testing.assert_allclose(matrix @ root.x, 1.0, atol=1e-9)
    assert root.converged and root.n_steps <= 2
    np.testing.assert_allclose(root.jacobian, matrix, atol=1e-6)


def test_coupled_equations():
    root = solve(lambda x: np.array([x[0] ** 2 + x[1] ** 2 - 4.0, np.exp(x[0]) + x[1] - 1.0]), [1.0, -1.7])
    assert root.converged and root.size < 1e-10


def test_badly_scaled_equations():
    root = solve(powell, [0.0, 1.0], max_steps=200)
    np.testing.assert_allclose(root.x, [1.098159e-5, 9.106147], rtol=1e-5)


def test_a_wrong_jacobian_is_replaced():
    root = solve(lambda x: x**3 - 8.0, [1.5], jacobian=np.array([[-1.0]]))
    assert root.converged
    np.testing.assert_allclose(root.x, 2.0)


def test_points_without_an_answer_are_avoided():
    root = solve(lambda x: None if x[0] <= 0 else np.log(x) + 1.0, [2.0], max_step=5.0)
    assert root.converged
    np.testing.assert_allclose(root.x, np.exp(-1.0))


def test_equations_without_a_root_do_not_converge():
    root = solve(lambda x: x**2 + 1.0, [0.7])
    assert not root.converged and root.size >= 1.0


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_counted_and_bounded(steps):
    root = solve(powell, [0.0, 1.0], max_steps=steps)
    assert root.n_steps <= steps and not root.converged
