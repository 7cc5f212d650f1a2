"""What the theory of deep ReLU networks refuses, and new inputs."""

import numpy as np
import pytest
from attrs import evolve
from numpy.testing import assert_allclose
from rectified_cases import two_classes

import fltheory as flt
from fltheory.meanfield.neuron import NewInputs
from fltheory.testing import check_solution


def overlapping() -> flt.ArrayTask:
    rng = np.random.default_rng(0)
    return flt.ArrayTask.from_labels(rng.standard_normal((6, 8)), np.repeat([0, 1], 3))


def dependent() -> flt.ArrayTask:
    task = two_classes().task
    return flt.ArrayTask(np.sqrt(60) * np.eye(60), task.targets @ [[1.0], [-1.0]])


@pytest.mark.parametrize(
    ("changes", "arguments", "name"),
    [
        ({"nonlinearity": flt.Softplus()}, {}, "nonlinearity"),
        ({"nonlinearity": flt.GELU()}, {}, "nonlinearity"),
        ({"n_hidden_layers": 4}, {}, "n_hidden_layers"),
        ({"task": overlapping()}, {}, "task"),
        ({"task": dependent()}, {}, "task"),
        ({"task": flt.OrthogonalClassification(60, (0.25,) * 4)}, {}, "task"),
        ({}, {"method": "ep"}, "method"),
        ({}, {"finite_width": True}, "finite_width"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(changes: dict, arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        evolve(two_classes(), **changes).solve(**arguments)


@pytest.mark.slow
def test_too_few_steps_return_the_last_iterate() -> None:
    with pytest.raises(flt.ConvergenceError) as caught:
        two_classes().solve(max_iterations=1)
    assert caught.value.last.residual > 1e-6
    assert_allclose(caught.value.last.dual_field, two_classes().solve().dual_field, atol=0.1)


def test_an_orthogonal_input_is_answered_by_the_bulk(relu_theory: flt.MeanFieldSolution) -> None:
    """Its kernel with class c is that of the bulk alone; with 8192 neurons to 5 %."""
    task = two_classes().task
    theory = relu_theory.neuron
    inputs = NewInputs(np.zeros((1, 60)), np.ones((1, 1)))
    mean, variance = theory.predict(inputs)
    activity = theory.point.layers[0].bulk.averages[0]  # <phi> of the bulk, by class
    cross = np.sqrt(1 / (2 * np.pi)) * activity
    found = theory._up_to(1, inputs).cross[0]
    labels = task.labels
    groups = [found[labels == c].mean() for c in (0, 1)]
    assert_allclose(groups, cross, rtol=0.02)
    assert mean.shape == variance.shape == (1, 2) and (variance > 0).all()
    assert_allclose(mean[0, 0], mean[0, 1], rtol=0.2)


def test_few_inputs_are_confirmed_on_another_lattice() -> None:
    """Six a class: the tail is long, and the solution is carried to a longer lattice in parts."""
    task = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.5))
    posterior = flt.DeepNetworkPosterior(task, flt.ReLU(), n_hidden_layers=2, width=100, temperature=6e-4)
    solution = posterior.solve()
    assert solution.agreement is not None
    assert solution.agreement.dual_field < 3e-3 and solution.agreement.kernel < 0.02


def test_inputs_of_one_class_obey_all_laws() -> None:
    task = flt.ArrayTask(np.sqrt(8) * np.eye(8), np.ones((8, 1)))
    posterior = flt.DeepNetworkPosterior(task, flt.ReLU(), n_hidden_layers=2, width=16, temperature=0.01)
    check_solution(posterior.solve())
