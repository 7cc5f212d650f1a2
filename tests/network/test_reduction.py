"""The first layer reduced to what the training inputs see: the same posterior, the same networks."""

import math

import numpy as np
import pytest
import torch

from fltheory.model import Model
from fltheory.network.forward import hidden_layers
from fltheory.network.reduction import Reduction
from fltheory.network.sampling import sample_network
from fltheory.network.target import IntegratedTarget
from fltheory.nonlinearity import Sigmoid
from fltheory.task import ArrayTask, OrthogonalClassification

RNG = np.random.default_rng(0)
TASKS = {
    "fewer inputs than dimensions": ArrayTask(RNG.normal(size=(3, 7)), RNG.normal(size=(3, 2))),
    "more inputs than dimensions": ArrayTask(RNG.normal(size=(6, 4)), RNG.normal(size=(6, 1))),
    "dependent inputs": ArrayTask(
        np.vander(np.arange(4.0), 2) @ RNG.normal(size=(2, 5)), RNG.normal(size=(4, 2))
    ),
    "orthogonal": OrthogonalClassification(n_samples=4, class_ratios=(0.5, 0.5), n_inputs=6),
}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def model_of(task, depth=1, temperature=0.1, width=5):
    return Model(task, Sigmoid(), width, temperature, (1.3,) * depth, 0.5, False)


def preactivations(model, weights, inputs):
    signal = torch.tensor(inputs)
    return hidden_layers([torch.tensor(weights)], signal, model.nonlinearity).preactivations[0].numpy()


@tasks
def test_reduced_weights_give_the_same_preactivations(task):
    model = model_of(task)
    reduction = Reduction.of(model)
    w = RNG.normal(size=(2, 5, task.n_inputs))
    small = preactivations(reduction.model, reduction.reduce(w), reduction.model.task.inputs)
    np.testing.assert_allclose(small, preactivations(model, w, task.inputs), atol=1e-12)


@tasks
def test_completed_weights_are_those_and_a_draw_from_the_prior_elsewhere(task):
    reduction = Reduction.of(model_of(task))
    rank = np.linalg.matrix_rank(task.inputs)
    seen = RNG.normal(size=(2000, rank))
    w = reduction.complete(seen, seed=1, draw=2)
    np.testing.assert_allclose(reduction.reduce(w), seen, atol=1e-12)
    np.testing.assert_array_equal(w, reduction.complete(seen, seed=1, draw=2))
    unseen = w - reduction.reduce(w) @ reduction.basis.T
    assert np.abs(unseen - (lambda v: v - reduction.reduce(v) @ reduction.basis.T)(unseen)).max() < 1e-12
    # A chi square of 2000 (N0 - q) normal numbers of variance 1.3, five standard deviations wide.
    dof = 2000 * (task.n_inputs - rank)
    assert abs((unseen**2).sum() / 1.3 - dof) <= 5.0 * math.sqrt(2.0 * dof) + 1e-9
    other = reduction.complete(seen, seed=1, draw=3)
    assert dof == 0 or np.abs(other - w).max() > 0.1


def test_independent_inputs_give_whitened_preactivations():
    task = TASKS["fewer inputs than dimensions"]
    reduced = Reduction.of(model_of(task)).model.task
    np.testing.assert_allclose(reduced.inputs, reduced.inputs.T, atol=1e-12)
    np.testing.assert_allclose(reduced.gram(), task.gram(), atol=1e-12)


@tasks
@pytest.mark.parametrize("depth", [1, 2])
def test_the_likelihood_is_the_same(task, depth):
    model = model_of(task, depth)
    reduction = Reduction.of(model)
    generator = torch.Generator().manual_seed(0)
    whole, small = IntegratedTarget(model), IntegratedTarget(reduction.model)
    x = torch.randn(2, whole.dimension, generator=generator, dtype=torch.float64)
    first, *deeper = whole.weights(x)
    weights = [torch.from_numpy(reduction.reduce(first.numpy())), *deeper[:-1]]
    y = small.position(weights, deeper[-1])
    likelihood = whole.log_density(x) + 0.5 * (x**2).sum(1)
    torch.testing.assert_close(small.log_density(y) + 0.5 * (y**2).sum(1), likelihood)


def test_samples_answer_on_inputs_given_as_on_those_they_know():
    task = TASKS["fewer inputs than dimensions"]
    samples = sample_network(model_of(task), n_draws=6, n_chains=2, n_warmup=5)
    for answer in (samples.outputs, samples.mean_outputs, lambda x=None: samples.kernel(1, x)):
        np.testing.assert_allclose(answer(task.inputs), answer(), atol=1e-10)
    new = np.concatenate([task.inputs, RNG.normal(size=(2, 7))])
    np.testing.assert_allclose(samples.outputs(new)[..., :3, :], samples.outputs(), atol=1e-10)
    z = preactivations(samples.model, samples.weights[0].reshape(-1, 5, 7), new)
    phi = Sigmoid()(z).reshape(2, 6, 5, -1)
    expected = np.einsum("cdnp,cdnm->cdpm", phi, samples.readouts) / 5
    np.testing.assert_allclose(samples.outputs(new), expected, atol=1e-10)
