"""The network's log density: gradients, symmetries, the readout integrated out, T = 0 and infinity."""

import math

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings, strategies as st

from fltheory.model import Model
from fltheory.network.forward import hidden_layers, outputs
from fltheory.network.readout import ReadoutPosterior
from fltheory.network.target import IntegratedTarget, NetworkTarget, WeightTarget
from fltheory.nonlinearity import Linear, Nonlinearity, ReLU, Sigmoid, Tanh
from fltheory.numerics.namespace import special
from fltheory.sampler.base import Target
from fltheory.task import ArrayTask, OrthogonalClassification

N_CHAINS = 3
SIGMOID = Sigmoid()


@frozen
class Swish(Nonlinearity):
    """A user's nonlinearity: no derivative of its own."""

    def __call__(self, z):
        return z * special(z).expit(z)


def make_model(
    phi=SIGMOID, *, width=6, temperature=0.3, depth=1, lazy=False, n_samples=3, n_inputs=4, n_outputs=2
) -> Model:
    rng = np.random.default_rng(1)
    task = ArrayTask(rng.normal(size=(n_samples, n_inputs)), rng.normal(size=(n_samples, n_outputs)))
    variances = tuple(1.0 + 0.5 * layer for layer in range(depth))
    return Model(task, phi, width, temperature, variances, 0.7, lazy)


def positions(target: NetworkTarget, n_chains=N_CHAINS, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_chains, target.dimension, generator=generator, dtype=torch.float64)


def relative_error(gradient: torch.Tensor, right: torch.Tensor) -> float:
    """The largest of all chains."""
    return float(((gradient - right).norm(dim=1) / right.norm(dim=1)).max())


networks = st.builds(
    make_model,
    st.sampled_from([Sigmoid(), Tanh(), Linear(), Swish()]),
    width=st.integers(1, 5),
    temperature=st.sampled_from([0.01, 0.5, math.inf]),
    depth=st.integers(1, 3),
    lazy=st.booleans(),
    n_samples=st.integers(1, 4),
    n_inputs=st.integers(1, 3),
    n_outputs=st.integers(1, 2),
)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(networks, st.sampled_from([WeightTarget, IntegratedTarget]), st.booleans(), st.integers(0, 99))
def test_gradient_is_that_of_autograd_and_of_finite_differences(model, kind, per_chain, seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(N_CHAINS,) * per_chain + model.task.targets.shape)
    target = kind(model, targets=targets)
    x = positions(target, seed=seed)
    value, gradient = target.value_and_gradient(x)
    expected_value, expected_gradient = Target.value_and_gradient(target, x)
    torch.testing.assert_close(value, expected_value)
    assert relative_error(gradient, expected_gradient) < 1e-10  # 1e-12 found
    direction = torch.from_numpy(rng.normal(size=x.shape))
    h = 1e-5
    difference = (target.log_density(x + h * direction) - target.log_density(x - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(1), difference, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("phi", [Sigmoid(), ReLU(), Linear()])
@pytest.mark.parametrize("lazy", [False, True])
def test_gradient_at_zero_temperature(phi, lazy):
    model = make_model(phi, width=12, temperature=0.0, depth=2, lazy=lazy)
    target = IntegratedTarget(model)
    x = positions(target)
    value, gradient = target.value_and_gradient(x)
    expected_value, expected_gradient = Target.value_and_gradient(target, x)
    assert value.isfinite().all()
    torch.testing.assert_close(value, expected_value)
    assert relative_error(gradient, expected_gradient) < 1e-10  # 1e-14 found


@pytest.mark.parametrize("kind", [WeightTarget, IntegratedTarget])
@pytest.mark.parametrize("layer", [0, 1])
def test_permuting_the_neurons_of_a_layer_changes_nothing(kind, layer):
    target = kind(make_model(depth=2))
    x = positions(target)
    *weights, readouts = target.weights(x)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    weights[layer] = weights[layer][:, order]
    if layer == 0:
        weights[1] = weights[1][:, :, order]
    else:
        readouts = readouts[:, order]
    permuted = target.position(weights, readouts)
    assert not torch.allclose(permuted, x)
    torch.testing.assert_close(target.log_density(permuted), target.log_density(x))


@pytest.mark.parametrize("lazy", [False, True])
def test_integrating_the_readout_analytically_gives_the_integrated_density(lazy):
    model = make_model(lazy=lazy, depth=2)
    full, reduced = WeightTarget(model), IntegratedTarget(model)
    x = positions(reduced)
    features = reduced.layers(x).features
    posterior = reduced.readout_posterior(features)
    # Gaussian in the readouts: its integral is its peak times the root of the determinant
    peak = full.log_density(full.position(full_weights(reduced, x), posterior.mean))
    gram = posterior.kernel_scale * features.mT @ features / model.temperature
    volume = -0.5 * 2 * torch.linalg.slogdet(torch.eye(3, dtype=torch.float64) + gram)[1]
    constant = -0.5 * 2 * 3 * math.log(model.temperature)
    torch.testing.assert_close(reduced.log_density(x), peak + volume + constant)


def full_weights(target: NetworkTarget, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return target.weights(x)[:-1]


@pytest.mark.parametrize("kind", [WeightTarget, IntegratedTarget])
def test_targets_of_its_own_for_each_chain(kind):
    model = make_model()
    targets = np.random.default_rng(2).normal(size=(N_CHAINS, 3, 2))
    together = kind(model, targets=targets)
    x = positions(together)
    value, gradient = together.value_and_gradient(x)
    for c in range(N_CHAINS):
        alone_value, alone_gradient = kind(model, targets=targets[c]).value_and_gradient(x[c : c + 1])
        torch.testing.assert_close(value[c : c + 1], alone_value)
        torch.testing.assert_close(gradient[c : c + 1], alone_gradient)


@pytest.mark.parametrize("kind", [WeightTarget, IntegratedTarget])
def test_infinite_temperature_is_the_prior(kind):
    target = kind(make_model()).at(math.inf)
    x = positions(target)
    value, gradient = target.value_and_gradient(x)
    torch.testing.assert_close(value, -0.5 * (x**2).sum(1))
    torch.testing.assert_close(gradient, -x)


@pytest.mark.parametrize("kind", [WeightTarget, IntegratedTarget])
def test_position_inverts_weights(kind):
    target = kind(make_model(depth=3))
    x = positions(target)
    *weights, readouts = target.weights(x)
    torch.testing.assert_close(target.position(weights, readouts), x)
    assert x.abs().mean() < 1.0 < weights[2].abs().mean() * math.sqrt(math.pi / 2) / 1.3  # sigma_3^2 = 2


def test_the_forward_map_is_the_equation():
    rng = np.random.default_rng(0)
    w1, w2, x = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 5)), rng.normal(size=(3, 4))
    a, phi = rng.normal(size=(2, 5, 2)), np.tanh
    layers = hidden_layers([torch.tensor(w1), torch.tensor(w2)], torch.tensor(x), Tanh())
    for c in range(2):
        for mu in range(3):
            z1 = w1[c] @ x[mu] / np.sqrt(4)
            z2 = w2[c] @ phi(z1) / np.sqrt(5)
            np.testing.assert_allclose(layers.preactivations[0][c, :, mu], z1)
            np.testing.assert_allclose(layers.activations[1][c, :, mu], phi(z2))
            f = outputs(torch.tensor(a), layers.features, is_lazy=False)[c, mu]
            np.testing.assert_allclose(f, a[c].T @ phi(z2) / 5)
            lazy = outputs(torch.tensor(a), layers.features, is_lazy=True)[c, mu]
            np.testing.assert_allclose(lazy, a[c].T @ phi(z2) / np.sqrt(5))


def test_singular_features_have_no_density_at_zero_temperature_in_their_chain_only():
    target = IntegratedTarget(make_model(temperature=0.0))
    x = positions(target)
    x[1] = 0.0  # all features equal: rank 1
    value, gradient = target.value_and_gradient(x)
    good = [0, 2]
    assert value[1] == -math.inf
    expected_value, expected_gradient = target.value_and_gradient(x[good])
    torch.testing.assert_close(value[good], expected_value)
    torch.testing.assert_close(gradient[good], expected_gradient)


def test_features_dependent_up_to_rounding_are_singular_too():
    target = IntegratedTarget(make_model(Linear(), temperature=0.0, n_samples=5, n_inputs=2))
    assert (target.log_density(positions(target)) == -math.inf).all()


# The readout given the features ------------------------------------------------------------------


def readout_posterior(temperature, n_chains=1, width=4, n_samples=2, scale=0.5) -> ReadoutPosterior:
    rng = np.random.default_rng(3)
    features = torch.tensor(rng.normal(size=(1, width, n_samples))).expand(n_chains, -1, -1)
    targets = torch.tensor(rng.normal(size=(1, n_samples, 2))).expand(n_chains, -1, -1)
    return ReadoutPosterior(features, targets, temperature, variance=1.3, scale=scale)


def dense_moments(posterior: ReadoutPosterior) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, m) and covariance (N, N) of one output's readouts, from the N x N precision matrix."""
    phi, y = posterior.features[0].numpy() * posterior.scale, posterior.targets[0].numpy()
    beta = 1.0 / max(posterior.temperature, 1e-9)
    covariance = np.linalg.inv(np.eye(len(phi)) / posterior.variance + beta * phi @ phi.T)
    return beta * covariance @ phi @ y, covariance


@pytest.mark.parametrize("temperature", [0.4, 0.0, math.inf])
def test_readouts_are_drawn_from_their_gaussian_posterior(temperature):
    # 40000 draws of 8 readouts: the largest of 44 |z| exceeds 4.5 by chance with 3e-4.
    posterior = readout_posterior(temperature, n_chains=40_000)
    draws = posterior.draw(torch.Generator().manual_seed(0)).numpy()  # (C, N, m)
    mean, covariance = dense_moments(posterior)
    deviation = draws - mean
    np.testing.assert_allclose(posterior.mean[0], mean, atol=1e-6)
    assert np.abs(z_score(deviation, np.zeros_like(mean))).max() < 4.5
    for output in range(2):
        products = deviation[:, :, None, output] * deviation[:, None, :, output]
        assert np.abs(z_score(products, covariance)).max() < 4.5
    across = deviation[:, :, None, 0] * deviation[:, None, :, 1]
    assert np.abs(z_score(across, np.zeros((4, 4)))).max() < 4.5
    # negative twin: readouts 5 % too wide
    assert (
        np.abs(
            z_score((1.05 * deviation[:, :, None, 0]) * (1.05 * deviation[:, None, :, 0]), covariance)
        ).max()
        > 6
    )


def z_score(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (values.mean(0) - expected) / (values.std(0) / math.sqrt(len(values)))


@pytest.mark.parametrize("width", [100, 41])
def test_training_error_at_zero_temperature_is_rounding(width):
    task = OrthogonalClassification(40, (0.5, 0.25, 0.25))
    target = IntegratedTarget(Model(task, Sigmoid(), width, 0.0, (1.0,), 1 / 40, False))
    x = positions(target)
    readouts = target.draw_readouts(x, torch.Generator().manual_seed(0))
    f = outputs(readouts, target.layers(x).features, is_lazy=False)
    error = ((f - torch.tensor(task.targets)) ** 2).mean((1, 2))
    assert (error < 1e-20).all()


@pytest.mark.parametrize("temperature", [0.05, 2.0])
def test_law_22_of_the_readout_norm(temperature):
    """<|a|^2> / sigma_a^2 = N m + beta <tr F^T (Y - F)>, at fixed features."""
    posterior = readout_posterior(temperature, width=6, n_samples=3)
    mean, covariance = dense_moments(posterior)
    square = ((mean**2).sum() + 2 * np.trace(covariance)) / posterior.variance
    f, variance = posterior.predict(posterior.features)
    product = (f * (posterior.targets - f)).sum() - 2 * variance.sum()
    assert square == pytest.approx(6 * 2 + float(product) / temperature, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.4, 0.0, math.inf])
def test_prediction_given_the_features_is_that_of_the_mean_and_covariance_of_the_readouts(temperature):
    posterior = readout_posterior(temperature)
    new = torch.tensor(np.random.default_rng(4).normal(size=(1, 4, 3)))
    mean, covariance = dense_moments(posterior)
    predicted, variance = posterior.predict(new)
    phi = posterior.scale * new[0].numpy()
    np.testing.assert_allclose(predicted[0], phi.T @ mean, atol=1e-6)
    np.testing.assert_allclose(variance[0], np.diag(phi.T @ covariance @ phi), atol=1e-6)


def test_solution_is_the_scaled_residual_of_the_mean_output():
    posterior = readout_posterior(0.4)
    f, _ = posterior.predict(posterior.features)
    torch.testing.assert_close(posterior.solution, (posterior.targets - f) / 0.4)


def test_hot_temperature_has_weak_tilts():
    model = make_model(width=50)
    target = IntegratedTarget(model)
    x = positions(target)
    hot = target.hot_temperature(x)
    features = target.layers(x).features
    t = torch.tensor(model.task.targets) / (hot * model.width)
    tilt = 0.5 * model.readout_variance * ((features @ t) ** 2).sum(-1).mean(1)
    assert tilt.max() == pytest.approx(1 / 8)
    doubled = evolve(target, targets=2 * model.task.targets)
    assert doubled.hot_temperature(x) == pytest.approx(2 * hot)


def test_single_precision_stays_single():
    target = IntegratedTarget(make_model(), dtype=torch.float32)
    x = positions(target).float()
    value, gradient = target.value_and_gradient(x)
    assert value.dtype == gradient.dtype == torch.float32
    expected = IntegratedTarget(make_model()).value_and_gradient(x.double())[1]
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-3)
