"""Sequential quadratic programming on textbook problems, against scipy's SLSQP."""

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from fltheory.numerics.constrained import minimise_constrained


@frozen(eq=False)
class Point:
    value: float
    gradient: np.ndarray
    hessian: np.ndarray

    def newton_step(self):
        return -np.linalg.solve(self.hessian, self.gradient)

    def solve(self, right, curvature):
        matrix = self.hessian + curvature @ curvature.T
        return np.linalg.solve(matrix, right.reshape(len(matrix), -1)).reshape(right.shape)


@frozen(eq=False)
class Constraint:
    excess: float
    gradient: np.ndarray
    curvature: np.ndarray


@frozen(eq=False)
class Quartic:
    """sum_i (x - a)_i^4 / 4 + (x - a) A (x - a) / 2."""

    centre: np.ndarray
    matrix: np.ndarray

    def __call__(self, x):
        d = (x - self.centre).ravel()
        gradient = d**3 + self.matrix @ d
        value = 0.25 * (d**4).sum() + 0.5 * d @ self.matrix @ d
        return Point(value, gradient.reshape(x.shape), np.diag(3 * d**2) + self.matrix)


@frozen(eq=False)
class Ellipsoids:
    """x B_k x <= 1, of which only those within reach are told."""

    roots: list

    def __call__(self, x):
        drives = [root.T @ x.ravel() for root in self.roots]
        found = [
            Constraint(float(d @ d) - 1.0, 2 * (root @ d).reshape(x.shape), np.sqrt(2) * root)
            for d, root in zip(drives, self.roots, strict=True)
        ]
        return [c for c in found if c.excess > -0.9]


def problem(seed, n=4, m=2, n_constraints=3):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n * m, n * m))
    function = Quartic(2 * rng.normal(size=(n, m)), root @ root.T / (n * m) + 0.1 * np.eye(n * m))
    return function, Ellipsoids([rng.normal(size=(n * m, 3)) for _ in range(n_constraints)]), (n, m)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_it_finds_the_minimum_and_its_multipliers(seed):
    function, constraints, shape = problem(seed)
    found = minimise_constrained(function, constraints, np.zeros(shape), tolerance=1e-8, radius=1.0)
    assert found.converged
    reference = minimize(
        lambda x: function(x.reshape(shape)).value,
        np.zeros(shape).ravel(),
        jac=lambda x: function(x.reshape(shape)).gradient.ravel(),
        constraints=[
            {"type": "ineq", "fun": lambda x, r=root: 1.0 - ((r.T @ x) ** 2).sum()}
            for root in constraints.roots
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert_allclose(found.point.here.value, reference.fun, rtol=1e-5, atol=1e-6)
    assert (found.point.multipliers >= 0).all()
    slack = np.array([c.excess for c in found.point.constraints])
    assert np.abs(slack * found.point.multipliers).max(initial=0.0) < 1e-5  # complementary


def test_without_constraints_it_is_newtons_method():
    function, _, shape = problem(0)
    found = minimise_constrained(function, lambda x: [], np.zeros(shape), tolerance=1e-10)
    assert found.converged
    assert_allclose(found.point.x, function.centre, atol=1e-4)


def test_a_forgotten_constraint_changes_the_answer():
    """Negative twin."""
    function, constraints, shape = problem(1)
    whole = minimise_constrained(function, constraints, np.zeros(shape), tolerance=1e-8)
    active = int(np.argmax(whole.point.multipliers))
    fewer = Ellipsoids([r for k, r in enumerate(constraints.roots) if k != active])
    part = minimise_constrained(function, fewer, np.zeros(shape), tolerance=1e-8)
    assert part.point.here.value < whole.point.here.value - 1e-3


def test_it_says_when_it_stops_short():
    function, constraints, shape = problem(2)
    found = minimise_constrained(function, constraints, np.zeros(shape), tolerance=1e-8, max_iterations=1)
    assert not found.converged
    assert found.point.residual > 1e-8


def test_points_of_infinite_value_are_avoided():
    function, constraints, shape = problem(3)

    def bounded(x):
        here = function(x)
        return here if np.linalg.norm(x) < 0.2 else Point(np.inf, here.gradient, here.hessian)

    found = minimise_constrained(bounded, constraints, np.zeros(shape), tolerance=1e-8, max_iterations=20)
    assert np.isfinite(found.point.here.value)
    assert np.linalg.norm(found.point.x) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_the_residual_is_reported_at_every_step(seed):
    function, constraints, shape = problem(seed)
    seen = []
    found = minimise_constrained(function, constraints, np.zeros(shape), tolerance=1e-8, report=seen.append)
    assert len(seen) == len(found.path)
    assert seen[-1] == found.point.residual
