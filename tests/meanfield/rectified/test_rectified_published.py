"""Numbers of docs/theory.md section 9, and what the theory says of tasks without symmetry."""

import numpy as np
import pytest
from attrs import evolve
from numpy.testing import assert_allclose
from rectified_cases import coarse_problem, point_of, solved, two_classes

import fltheory as flt
from fltheory.meanfield.rectified.search import ChainSearch, error
from fltheory.testing import check_solution


def blocks(matrix: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Averages over pairs of inputs of one class and of two, and the diagonal."""
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    other = labels[:, None] != labels
    return float(matrix[same].mean()), float(matrix[other].mean()), float(np.diagonal(matrix).mean())


def test_two_layers(relu_theory: flt.MeanFieldSolution) -> None:
    labels = relu_theory.model.task.labels
    own = np.eye(2, dtype=bool)[labels]
    t = relu_theory.dual_field
    assert_allclose([t[own].mean(), t[~own].mean()], [0.3801, -0.1212], atol=2e-4)
    assert_allclose(blocks(relu_theory.kernel(1), labels), [0.5005, 0.2259, 0.9200], atol=2e-4)
    assert_allclose(blocks(relu_theory.kernel(2), labels)[:2], [5.790, 1.870], atol=4e-3)
    assert relu_theory.free_energy == pytest.approx(29.79936, abs=1e-3)
    assert_allclose(relu_theory.neuron.gains, [1.0, 0.9916], atol=3e-4)
    strength = relu_theory.decomposition(1).outliers.max(1) ** 2
    assert_allclose(strength, [0.243, 0.243], atol=5e-4)
    assert relu_theory.agreement.kernel < 1e-3
    assert [relu_theory.symmetry(layer) for layer in (1, 2)] == ["broken", "intact"]


def test_shares_of_active_neurons(relu_theory: flt.MeanFieldSolution) -> None:
    """Of layer 2 with class-mean z > 2, 4, 8: 40,000 neurons, 5 standard errors, which sees 5 to 25 %."""
    labels = relu_theory.model.task.labels
    z = relu_theory.neurons(40_000, 2, seed=1).preactivations[:, labels == 0].mean(1)
    found = np.array([(z > bound).mean() for bound in (2, 4, 8)])
    expected = np.array([0.2635, 0.0966, 0.0136])
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / len(z))).all()


def test_the_solution_is_as_symmetric_as_the_task(relu_theory: flt.MeanFieldSolution) -> None:
    point = point_of(relu_theory)
    for matrix in (point.state.field, point.state.conjugates[0].blocks, point.kernel(2).blocks):
        assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-9 * np.abs(matrix).max())
    assert point.state.amplitudes[0, 0] == pytest.approx(point.state.amplitudes[0, 1], rel=1e-9)


def test_starts_on_both_sides_meet(relu_theory: flt.MeanFieldSolution) -> None:
    """From condensed neurons weaker and stronger than the solution's."""
    problem = coarse_problem()
    near = solved(problem, point_of(relu_theory))
    search = ChainSearch(problem, flt.ReLU(), lambda residual: None)
    ends = []
    for factor in (1.1, 0.95):
        state = evolve(near.state, amplitudes=factor * near.state.amplitudes)
        weaker = state.field / max(1.0, factor)  # else the readout layer has no law at the larger kernel
        start = search.settle(evolve(state, field=weaker), 1e-3)
        assert start is not None and error(start.point) > 1e-2
        ends.append(search.condense(start.point, 1e-6, 30))
        assert error(ends[-1]) < 1e-6
    assert ends[0].value == pytest.approx(ends[1].value, abs=1e-6)
    assert_allclose(ends[0].state.amplitudes, ends[1].state.amplitudes, rtol=1e-3)


@pytest.mark.slow
def test_three_layers() -> None:
    theory = two_classes(3).solve()
    labels = theory.model.task.labels
    t = theory.dual_field[labels == 0].mean(0)
    assert_allclose(t, [0.193, -0.075], atol=6e-4)
    expected = [(0.326, 0.203), (2.091, 1.137), (12.13, 4.74)]
    for layer, pair in enumerate(expected, start=1):
        assert_allclose(blocks(theory.kernel(layer), labels)[:2], pair, rtol=2e-3, atol=5e-4)
    check_solution(theory)


@pytest.mark.slow
def test_of_unequal_classes_the_small_one_condenses() -> None:
    """Classes of 45 and 15: only the smaller one has a condensed neuron, and no other would help."""
    theory = two_classes(2, (0.75, 0.25)).solve()
    outliers = theory.decomposition(1).outliers
    labels = theory.model.task.labels
    assert outliers.shape[0] == 1 and (outliers[0][labels == 0] == 0).all()
    assert outliers[0].max() ** 2 == pytest.approx(0.609, abs=2e-3)
    assert theory.certificate == pytest.approx(1.0, abs=1e-6)
    check_solution(theory)


@pytest.mark.slow
def test_temperature_zero() -> None:
    cold = flt.DeepNetworkPosterior(two_classes().task, flt.ReLU(), n_hidden_layers=2, width=300).solve()
    assert_allclose(cold.predict().mean, cold.model.task.targets, atol=1e-12)
    t = cold.dual_field[cold.model.task.labels == 0].mean(0)
    assert_allclose(t, [0.3786, -0.1205], atol=5e-4)
    check_solution(cold)
