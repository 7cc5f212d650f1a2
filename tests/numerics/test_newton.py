"""Newton on textbook functions: convex, with a barrier, and double wells from many starts."""

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from fltheory.numerics.newton import minimise, minimise_batch

# One convex function -----------------------------------------------------------------------------


@frozen(eq=False)
class Point:
    """f, f' and f'' at one point, x of any shape."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray

    def newton_step(self):
        return -np.linalg.solve(self.hessian, self.gradient.ravel()).reshape(self.gradient.shape)


@frozen(eq=False)
class SoftMaximum:
    """log sum_i exp(a_i x + b_i) + c |x|^2 / 2."""

    rows: np.ndarray
    offsets: np.ndarray
    curvature: float

    @classmethod
    def random(cls, seed, n=4, curvature=0.1):
        rng = np.random.default_rng(seed)
        return cls(3 * rng.normal(size=(9, n)), rng.normal(size=9), curvature)

    def __call__(self, x):
        flat = x.ravel()
        exponents = self.rows @ flat + self.offsets
        p = softmax(exponents)
        mean = p @ self.rows
        hessian = (self.rows.T * p) @ self.rows - np.outer(mean, mean) + self.curvature * np.eye(flat.size)
        value = float(logsumexp(exponents) + 0.5 * self.curvature * flat @ flat)
        return Point(value, (mean + self.curvature * flat).reshape(x.shape), hessian)


def barrier(x):
    """sum x - log x, infinite for x <= 0: its minimum is at 1."""
    if (x <= 0).any():
        return Point(np.inf, np.full_like(x, np.nan), np.eye(len(x)))
    return Point(float((x - np.log(x)).sum()), 1 - 1 / x, np.diag(1 / x**2))


@given(st.integers(0, 10_000))
def test_minimum_is_scipy_s_and_the_path_decreases(seed):
    f = SoftMaximum.random(seed)
    start = 5 * np.random.default_rng(seed).normal(size=4)
    found = minimise(f, start, tolerance=1e-9)
    other = minimize(lambda x: (f(x).value, f(x).gradient), start, jac=True, tol=1e-10)
    assert found.converged and found.residual < 1e-9
    assert_allclose(found.x, other.x, atol=1e-4)
    assert found.value <= other.fun + 1e-10
    assert np.diff(found.path).max(initial=0) < 1e-9
    assert found.path[0] == f(start).value and found.path[-1] == found.value
    assert found.residual == np.abs(f(found.x).gradient).max()


@given(st.integers(0, 10_000))
def test_newton_does_not_see_the_coordinates(seed):
    f = SoftMaximum.random(seed)
    rng = np.random.default_rng(seed)
    change = np.eye(4) + 0.2 * rng.normal(size=(4, 4))

    def changed(y):
        here = f(change @ y)
        return Point(here.value, change.T @ here.gradient, change.T @ here.hessian @ change)

    start = rng.normal(size=4)
    paths = [
        minimise(f, start, tolerance=1e-12, max_iterations=4).path,
        minimise(changed, np.linalg.solve(change, start), tolerance=1e-12, max_iterations=4).path,
    ]
    assert_allclose(paths[0], paths[1], rtol=1e-7)


def test_a_quadratic_takes_one_step_and_its_minimum_none():
    matrix, b = np.diag([1.0, 10.0]), np.array([1.0, -2.0])

    def f(x):
        return Point(float(0.5 * x @ matrix @ x - b @ x), matrix @ x - b, matrix)

    once = minimise(f, np.array([7.0, 7.0]), tolerance=1e-10)
    assert len(once.path) == 2 and once.converged
    again = minimise(f, once.x, tolerance=1e-10)
    assert len(again.path) == 1 and again.converged
    assert_allclose(again.x, [1.0, -0.2], atol=1e-12)


def test_the_line_search_stays_where_the_function_is_finite():
    found = minimise(barrier, np.array([10.0, 0.01, 3.0]), tolerance=1e-10)
    assert found.converged and np.diff(found.path).max() <= 0
    assert_allclose(found.x, 1.0, atol=1e-9)


def test_too_few_iterations_are_reported():
    found = minimise(SoftMaximum.random(0), np.full(4, 20.0), tolerance=1e-12, max_iterations=1)
    assert not found.converged and found.residual > 1e-12 and len(found.path) == 2


def test_steps_are_limited():
    f, start = SoftMaximum.random(0), np.full(4, 20.0)
    found = minimise(f, start, tolerance=1e-12, max_iterations=1, max_step=0.5)
    assert_allclose(np.abs(found.x - start).max(), 0.5)
    assert minimise(f, start, tolerance=1e-9, max_iterations=200, max_step=0.5).converged


def test_it_stops_on_the_border_of_its_radius():
    f, start = SoftMaximum.random(0), np.full((2, 2), 20.0)  # rows of two
    found = minimise(f, start, tolerance=1e-9, radius=3.0, max_step=1.0)
    assert_allclose(np.linalg.norm(found.x - start, axis=-1).max(), 3.0)
    assert not found.converged and found.value == f(found.x).value == found.path[-1]
    inside = minimise(f, start, tolerance=1e-9, radius=1e3)
    assert inside.converged


def test_a_wrong_derivative_is_not_called_converged():
    def uphill(x):
        here = SoftMaximum.random(0)(x)
        return Point(here.value, -here.gradient, here.hessian)

    found = minimise(uphill, np.ones(4), tolerance=1e-9)
    assert not found.converged and len(found.path) == 1


def test_nan_is_not_called_converged():
    found = minimise(lambda x: Point(np.nan, x * np.nan, np.eye(2)), np.ones(2), tolerance=1e-9)
    assert not found.converged


# Many starts -------------------------------------------------------------------------------------


def double_well(tilt):
    """(x^2 - 1)^2 + tilt x + 2 (y - x / 2)^2."""

    def evaluate(points):
        x, y = points.T
        off = y - x / 2
        value = (x**2 - 1) ** 2 + tilt * x + 2 * off**2
        gradient = np.stack([4 * x * (x**2 - 1) + tilt - 2 * off, 4 * off], 1)
        hessian = np.empty((len(x), 2, 2))
        hessian[:, 0, 0] = 12 * x**2 - 4 + 1
        hessian[:, 0, 1] = hessian[:, 1, 0] = -2
        hessian[:, 1, 1] = 4
        return value, gradient, hessian

    return evaluate


def wells(tilt):
    """Where 4 x (x^2 - 1) + tilt = 0 and the curvature is positive."""
    roots = np.roots([4, 0, -4, tilt])
    real = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    return real[12 * real**2 > 4]


@given(st.floats(-1.4, 1.4), st.integers(0, 1000))
def test_every_start_finds_a_well_and_all_wells_are_found(tilt, seed):
    starts = np.random.default_rng(seed).uniform(-3, 3, (60, 2))
    kept = starts.copy()
    x, value, hessian, is_minimum = minimise_batch(double_well(tilt), starts)
    known = wells(tilt)
    assert len(known) == 2 and is_minimum.all()
    nearest = np.abs(x[:, :1] - known).argmin(1)
    assert set(nearest) == {0, 1}
    assert_allclose(x, np.stack([known, known / 2], 1)[nearest], atol=1e-6)
    again = double_well(tilt)(x)
    assert_allclose(value, again[0]), assert_allclose(hessian, again[2])
    assert (starts == kept).all()


def test_one_well_is_left_under_a_strong_tilt():
    starts = np.random.default_rng(0).uniform(-3, 3, (40, 2))
    x, _, _, is_minimum = minimise_batch(double_well(2.0), starts)
    assert is_minimum.all()
    assert_allclose(x[:, 0], wells(2.0)[0], atol=1e-6)


def test_a_saddle_is_not_a_minimum():
    saddle, well = np.zeros(2), np.array([1.0, 0.5])
    x, _, _, is_minimum = minimise_batch(double_well(0.0), np.stack([saddle, well]))
    assert is_minimum.tolist() == [False, True]
    assert_allclose(x, [saddle, well])


def test_starts_do_not_feel_each_other():
    starts = np.random.default_rng(1).uniform(-3, 3, (10, 2))
    together = minimise_batch(double_well(0.3), starts)[0]
    alone = [minimise_batch(double_well(0.3), s[None])[0][0] for s in starts]
    assert_allclose(together, alone, atol=1e-8)


def test_too_few_iterations_are_no_minimum():
    *_, is_minimum = minimise_batch(double_well(0.3), np.array([[3.0, -3.0]]), max_iterations=1)
    assert not is_minimum.any()


@pytest.mark.parametrize("max_step", [0.1, 2.0])
def test_values_never_rise(max_step):
    starts = np.random.default_rng(2).uniform(-3, 3, (30, 2))
    f = double_well(0.5)
    values = [f(starts)[0]]
    for n in (1, 2, 4, 8, 16):
        values.append(minimise_batch(f, starts, max_iterations=n, max_step=max_step)[1])
    assert np.diff(values, axis=0).max() < 1e-9
