"""Chains that start from neurons that somebody drew."""

import numpy as np
import pytest

import fltheory as flt
from fltheory.network.starts import _of_neurons

WIDTH, DEPTH = 40, 3
TASK = flt.OrthogonalClassification(12, (0.5, 0.5))
VARIANCES = (1.0, 2.0, 0.5)
PRIOR = flt.GaussianPrior(weight_variance=VARIANCES)
POSTERIOR = flt.DeepNetworkPosterior(
    TASK, flt.Linear(), PRIOR, n_hidden_layers=DEPTH, width=WIDTH, temperature=1e-3
)


def networks(n_chains=2):
    theory = POSTERIOR.solve()
    layers = range(1, DEPTH + 1)
    return [[theory.neurons(WIDTH, k, seed=10 * c + k) for k in layers] for c in range(n_chains)]


def test_weights_of_all_layers_give_the_preactivations():
    drawn = networks()
    weights, readouts = _of_neurons(POSTERIOR.model, drawn, np.random.default_rng(0))
    below = TASK.inputs.T
    for k, w in enumerate(weights):
        z = w @ below / np.sqrt(below.shape[-2])
        np.testing.assert_allclose(z, np.stack([n[k].preactivations for n in drawn]), atol=1e-11)
        below = z
    np.testing.assert_array_equal(readouts, np.stack([n[-1].readouts for n in drawn]))


def test_what_the_neurons_leave_open_has_the_variance_of_the_prior():
    # 2 x 40 x (40 - 12) numbers a layer, so that 15 % would be seen at four standard errors.
    drawn = networks()
    weights, _ = _of_neurons(POSTERIOR.model, drawn, np.random.default_rng(0))
    for k in (1, 2):
        below = np.stack([n[k - 1].activations for n in drawn])
        q, _ = np.linalg.qr(below)
        unseen = weights[k] - weights[k] @ q @ q.mT
        ratio = (unseen**2).sum() / (2 * WIDTH * (WIDTH - TASK.n_samples))
        assert abs(ratio / VARIANCES[k] - 1.0) < 4.0 * np.sqrt(2.0 / (2 * WIDTH * (WIDTH - TASK.n_samples)))


def test_deep_networks_start_from_theory():
    samples = POSTERIOR.sample(n_draws=2, n_chains=2, n_warmup=0, start="theory")
    assert samples.n_chains == 2 and np.isfinite(samples.training_error).all()
    other = POSTERIOR.sample(n_draws=2, n_chains=2, n_warmup=0, start=networks())
    assert not np.array_equal(samples.activations(1), other.activations(1))


def test_weights_between_layers_need_as_many_neurons_as_inputs():
    narrow = POSTERIOR.at_width(8)
    with pytest.raises(ValueError, match="start: expected at most as many inputs as neurons"):
        narrow.sample(n_draws=1, n_chains=2, start="theory")
    with pytest.raises(ValueError, match="start: expected 2 networks, each of 3 layers"):
        POSTERIOR.sample(n_draws=1, n_chains=2, start=[n[:1] for n in networks()])
