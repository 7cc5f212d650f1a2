"""The search for the kernel of the first layer on any input kernel."""

import numpy as np

from fltheory.meanfield.general.search import _combination, _Iterate


def symmetric(rng, size):
    matrix = rng.standard_normal((size, size))
    return matrix + matrix.T


def iterates(total, rng, count, size=3):
    """Kt around a solution, with a gap that is linear in the distance from it."""
    slope = rng.standard_normal((size * size, size * size))
    for _ in range(count):
        away = symmetric(rng, size)
        gap = (slope @ away.ravel()).reshape(size, size)
        yield _Iterate(total + away, gap, 2.0 * (total + away))


def test_enough_iterates_of_a_linear_problem_combine_to_its_solution():
    """Six numbers and seven iterates; kernels are combined like what they belong to."""
    rng = np.random.default_rng(0)
    total = symmetric(rng, 3)
    found = _combination(list(iterates(total, rng, 7)))
    np.testing.assert_allclose(found.total, total, atol=1e-4)
    np.testing.assert_allclose(found.kernel, 2.0 * total, atol=2e-4)
    np.testing.assert_allclose(found.gap, 0.0, atol=1e-4)


def test_too_few_iterates_do_the_best_they_can():
    rng = np.random.default_rng(1)
    history = list(iterates(symmetric(rng, 3), rng, 3))
    found = _combination(history)
    assert np.linalg.norm(found.gap) < min(np.linalg.norm(past.gap) for past in history)
    for change in (1e-3, -1e-3):  # a minimum over combinations
        moved = found.gap + change * (history[0].gap - history[1].gap)
        assert np.linalg.norm(moved) > np.linalg.norm(found.gap) - 1e-9


def test_iterates_that_say_nothing_new_are_left_out():
    rng = np.random.default_rng(2)
    (last,) = iterates(symmetric(rng, 3), rng, 1)
    near = _Iterate(last.total + 1e-3, last.gap * (1 - 1e-3), last.kernel)
    assert _combination([near, last]) is last  # its gap would have to be multiplied by a thousand
