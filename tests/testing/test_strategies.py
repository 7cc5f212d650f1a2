"""What the strategies draw is what they say, and shrinks to the simplest."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given, settings, strategies as st

import fltheory as flt
from fltheory.testing import strategies

once = settings(database=None)


@given(st.data(), st.integers(2, 8))
def test_kernels_are_symmetric_and_positive(data, n):
    kernel = data.draw(strategies.kernels(n))
    assert kernel.shape == (n, n) and kernel.dtype == np.float64 and (kernel == kernel.T).all()
    assert np.linalg.eigvalsh(kernel)[0] > -1e-12 * np.abs(kernel).max() and np.diagonal(kernel).any()


def rank(kernel):
    return np.linalg.matrix_rank(kernel, tol=1e-9 * np.abs(kernel).max(), hermitian=True)


@pytest.mark.parametrize(
    "kind",
    [
        lambda k: (k == np.eye(6)).all(),
        lambda k: (k == np.diag(np.diagonal(k))).all() and np.ptp(np.diagonal(k)) > 0,
        lambda k: rank(k) == 6 and k[0, 1] != 0,
        lambda k: rank(k) < 6,
        lambda k: k[0, 0] == k[0, 1] == k[1, 1],
        lambda k: np.diagonal(k).max() > 8,
    ],
)
def test_each_kind_of_kernel_is_drawn(kind):
    assert kind(find(strategies.kernels(6), kind, settings=once))


@given(strategies.tasks())
def test_tasks_are_small(task):
    assert isinstance(task, flt.Task)
    assert 3 <= task.n_samples <= 20 and 1 <= task.n_outputs <= 3
    assert np.isfinite(task.targets).all()
    np.testing.assert_allclose(task.gram(), task.inputs @ task.inputs.T / task.n_inputs, atol=1e-12)


@pytest.mark.parametrize(
    "kind",
    [
        lambda task: isinstance(task, flt.OrthogonalClassification),
        lambda task: task.labels is None,
        lambda task: task.labels is not None and np.abs(task.gram()[0, -1]) > 0,
        lambda task: rank(task.gram()) < task.n_samples,
        lambda task: (task.inputs[0] == task.inputs[-1]).all(),
        lambda task: task.n_outputs == 1,
        lambda task: task.n_outputs == 3,
    ],
)
def test_each_kind_of_task_is_drawn(kind):
    assert kind(find(strategies.tasks(), kind, settings=once))


@given(strategies.random_tasks())
def test_random_targets_can_be_fitted_by_a_linear_network(task):
    kernel = task.gram()
    fitted = kernel @ np.linalg.pinv(kernel, hermitian=True) @ task.targets
    np.testing.assert_allclose(fitted, task.targets, atol=1e-8)


@given(strategies.nonlinearities())
def test_nonlinearities_obey_their_laws(phi):
    flt.testing.check_nonlinearity(phi)


@given(st.data(), st.integers(1, 4))
def test_priors_fit_their_network(data, n_layers):
    assert len(data.draw(strategies.priors(n_layers)).weight_variances(n_layers)) == n_layers


@given(strategies.posteriors(scaled_temperatures=(0.25,), max_layers=2, width=10))
def test_posteriors_are_as_asked_for(posterior):
    assert posterior.width == 10 and posterior.n_hidden_layers <= 2
    assert posterior.temperature == 0.025


def test_posteriors_shrink_to_the_simplest():
    simplest = find(strategies.posteriors(), lambda _: True, settings=once)
    assert simplest.nonlinearity == flt.Linear() and simplest.n_hidden_layers == 1
    assert simplest.task.n_samples == 4 and simplest.readout_scaling == "non-lazy"


def test_every_engine_is_asked():
    for phi, diagonal in ((flt.Linear, False), (flt.Sigmoid, False), (flt.Sigmoid, True)):
        found = find(
            strategies.solvable_posteriors(),
            lambda p, phi=phi, diagonal=diagonal: (
                isinstance(p.nonlinearity, phi)
                and isinstance(p.task, flt.OrthogonalClassification) == diagonal
            ),
            settings=once,
        )
        assert isinstance(found.nonlinearity, phi)


def test_only_the_strategies_need_hypothesis():
    code = """
import sys, fltheory as flt
assert "testing" in dir(flt) and "strategies" in dir(flt.testing)
flt.testing.check_nonlinearity(flt.Tanh())
assert "hypothesis" not in sys.modules
flt.testing.strategies.tasks()
assert "hypothesis" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'check_everything'"):
        flt.testing.check_everything  # noqa: B018


@pytest.mark.parametrize("name", sorted(set(flt.testing.__all__) - {"strategies"}))
def test_a_public_name_resolves_and_is_documented(name):
    assert getattr(flt.testing, name).__doc__
