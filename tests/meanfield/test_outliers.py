"""Rays and condensed neurons: the certificate (14), (11), (12), and what follows for ReLU."""

import numpy as np
import pytest
from attrs import evolve
from cases import posterior, seeds
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from scipy.special import log_ndtr

import fltheory as flt
from fltheory.meanfield.outliers import RaySearch

SLOPES = st.sampled_from([(0.0, 1.0), (0.2, 1.0), (-1.0, 1.0), (0.0, -1.0), (1.0, 0.3)])


def random_search(seed, slopes, n=24, rank=15, m=2):
    rng = np.random.default_rng(seed)
    factor = (rng.normal(size=(n, rank)) + rng.normal(size=rank)) / np.sqrt(rank)
    return RaySearch(factor, slopes, 1 / n, seed), rng.normal(size=(n, m))


def quotient(search, field, latent):
    """sigma_a^2 |t^T phi_inf(F w)|^2 / |w|^2 for neurons w (n, q)."""
    z = latent @ search.factor.T
    minus, plus = search.slopes
    drive = np.where(z > 0, plus * z, minus * z) @ field
    return search.readout_variance * (drive**2).sum(1) / (latent**2).sum(1)


@given(seeds, SLOPES)
@settings(max_examples=20)
def test_no_neuron_beats_the_strongest_ray(seed, slopes):
    """Against ascent from two thousand random neurons, which knows nothing of active sets."""
    search, field = random_search(seed, slopes)
    rays = search(field)
    latent = np.random.default_rng(seed + 1).normal(size=(2000, search.factor.shape[1]))
    for _ in range(100):
        z = latent @ search.factor.T
        slope = np.where(z > 0, slopes[1], slopes[0])
        pull = (((slope * z) @ field) @ field.T * slope) @ search.factor
        latent = latent / np.linalg.norm(latent, axis=1, keepdims=True)
        latent = latent + pull / np.maximum(np.linalg.norm(pull, axis=1, keepdims=True), 1e-300)
    assert quotient(search, field, latent).max() <= rays[0].strength * (1 + 1e-9)
    own = np.linalg.pinv(search.factor) @ rays[0].preactivations
    assert_allclose(quotient(search, field, own[None])[0], rays[0].strength, rtol=1e-9)


@given(seeds, SLOPES)
@settings(max_examples=20)
def test_the_ray_solves_its_equations_and_its_derivatives_are_right(seed, slopes):
    search, field = random_search(seed, slopes)
    rays = search(field)
    ray, step = rays[0], 1e-5
    # (12) for a = r u, z = r z_1: t^T phi = u lambda / sigma_a^2
    assert_allclose(
        ray.activations @ field, ray.strength / search.readout_variance * ray.direction, rtol=1e-8, atol=1e-8
    )
    direction = np.random.default_rng(seed + 2).normal(size=field.shape)
    ahead, behind = (search(field + s * step * direction, rays)[0].strength for s in (1, -1))
    assert_allclose((ahead - behind) / (2 * step), (ray.gradient * direction).sum(), rtol=1e-5, atol=1e-7)
    bend = ((ray.curvature.T @ direction.ravel()) ** 2).sum()
    assert_allclose((ahead + behind - 2 * ray.strength) / step**2, bend, rtol=0.02, atol=0.02)


def test_orthogonal_inputs_give_the_certificate_by_enumeration():
    """K_0 = 1: lambda is the largest eigenvalue over the cells of sign patterns of t u."""
    rng = np.random.default_rng(0)
    field = rng.normal(size=(3, 2))[np.repeat([0, 1, 2], [5, 3, 4])]
    angles = np.linspace(0, 2 * np.pi, 200_001)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    brute = (np.maximum(field @ directions, 0.0) ** 2).sum(0).max() / 12
    found = RaySearch(np.eye(12), (0.0, 1.0), 1 / 12)(field)[0].strength
    assert_allclose(found, brute, rtol=1e-8)


@pytest.fixture(scope="module")
def relu() -> flt.MeanFieldSolution:
    return posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03, flt.ReLU()).solve()


def test_published_relu(relu):
    """docs/theory.md, section 9."""
    assert_allclose(relu.dual_field[0], [1.388, -0.272], atol=0.003)
    assert_allclose(relu.branches[0].activations[0], 0.5564, atol=0.002)
    strength = sum(o.readout * o.activations[0] for o in relu.outliers)  # one is active on input 0
    assert_allclose(np.linalg.norm(strength), 0.771, atol=0.004)
    assert len(relu.branches) == 1
    assert relu.certificate == pytest.approx(1.0, abs=1e-6)


def test_the_bulk_against_a_dense_grid_and_closed_form(relu):
    """<phi> of the bulk by (14c) and brute force over the two readouts, far beyond the bulk."""
    (own, other), variance, n = relu.dual_field[0], 1 / 60, 30
    readouts = np.stack(np.meshgrid(*[np.linspace(-12, 12, 601)] * 2, indexing="ij")) * np.sqrt(variance)
    fields = own * readouts + other * readouts[::-1]
    log_site = np.logaddexp(np.log(0.5), 0.5 * fields**2 + log_ndtr(fields))
    log_weight = n * log_site.sum(0) - 0.5 * (readouts**2).sum(0) / variance
    weight = np.exp(log_weight - log_weight.max())
    tilted = np.exp(0.5 * fields**2 + log_ndtr(fields) - log_site)
    mean = fields * tilted + np.exp(-log_site) / np.sqrt(2 * np.pi)
    assert_allclose(relu.branches[0].activations[0], (weight * mean[0]).sum() / weight.sum(), atol=5e-4)


def test_laws_of_a_condensed_solution(relu):
    """Laws 1, 2 and 21, with outliers; and the negative twin: without them law 1 fails."""
    model, field = relu.model, relu.dual_field
    targets, noise, variance = model.task.targets, model.scaled_temperature, model.readout_variance
    assert_allclose(noise * field + variance * relu.kernel(1) @ field, targets, atol=1e-3)
    mean = relu.branches[0].readout
    second = relu.readout_covariance + np.outer(mean, mean)
    virial = targets.T @ field - noise * field.T @ field
    assert_allclose(second / variance - np.eye(2), virial, atol=1e-2 * np.abs(virial).max())
    for outlier in relu.outliers:
        cost = outlier.readout @ outlier.readout / variance
        assert_allclose(outlier.preactivations @ outlier.preactivations, cost, rtol=1e-5)
        assert_allclose(outlier.readout @ field.T @ outlier.activations, cost, rtol=1e-5)
    bulk = relu.decomposition(1).bulk
    assert np.abs(noise * field + variance * bulk @ field - targets).max() > 0.5


def test_the_envelope_theorem(relu):
    """dS/d(NT) = |t|^2 / 2, with outliers."""
    task, step = relu.model.task, 0.003
    ahead, behind = (posterior(task, 0.03 + s * step, flt.ReLU()).solve().free_energy for s in (1, -1))
    assert (behind - ahead) / (2 * step) == pytest.approx(0.5 * (relu.dual_field**2).sum(), rel=1e-3)


def test_prediction_on_training_inputs(relu):
    inputs = relu.model.task.inputs
    assert_allclose(relu.predict(inputs).mean, relu.predict().mean, atol=1e-6)
    assert_allclose(relu.kernel(1, inputs), relu.kernel(1), atol=0.05)


def test_drawn_networks_hold_the_condensed_neurons(relu):
    neurons = relu.neurons(2000, 1, seed=1)
    largest = np.argsort(-np.abs(neurons.readouts).max(1))[:2]
    expected = np.sqrt(2000) * np.array([o.readout for o in relu.outliers])
    found = neurons.readouts[largest]
    assert_allclose(found[np.argsort(found[:, 0])], expected[np.argsort(expected[:, 0])])
    output = neurons.activations.T @ neurons.readouts / 2000
    assert_allclose(output, relu.predict().mean, atol=0.03)


@pytest.mark.parametrize(
    "phi", [pytest.param(flt.LeakyReLU(0.1), marks=pytest.mark.slow), flt.Softplus(), flt.GELU()]
)
def test_other_nonlinearities_with_a_slope(phi):
    theory = posterior(flt.OrthogonalClassification(30, (0.5, 0.5)), 0.05, phi).solve()
    assert theory.certificate <= 1 + 1e-6
    model, field = theory.model, theory.dual_field
    target = model.scaled_temperature * field + model.readout_variance * theory.kernel(1) @ field
    assert_allclose(target, model.task.targets, atol=2e-3)


def test_leaky_relu_of_slope_one_is_linear():
    task = flt.OrthogonalClassification(12, (0.5, 0.5))
    one, linear = (posterior(task, 0.1, phi).solve() for phi in (flt.LeakyReLU(1.0), flt.Linear()))
    assert_allclose(one.dual_field, linear.dual_field, atol=1e-9)
    assert one.method == "closed form"


def test_scaling_of_a_homogeneous_function(relu):
    """Law 10: (K_0, sigma_a^2) -> (s^2 K_0, sigma_a^2 / s^2)."""
    prior = flt.GaussianPrior(weight_variance=4.0, readout_variance=0.25)
    scaled = evolve(posterior(relu.model.task, 0.03, flt.ReLU()), prior=prior).solve()
    assert_allclose(scaled.dual_field, relu.dual_field, atol=1e-4)
    assert scaled.free_energy == pytest.approx(relu.free_energy, rel=1e-5)


def test_zero_temperature():
    theory = posterior(flt.OrthogonalClassification(40, (0.5, 0.5)), 0.0, flt.ReLU()).solve()
    assert_allclose(theory.predict().mean, theory.model.task.targets, atol=1e-12)
    assert len(theory.outliers) == 2


def test_the_bulk_by_expectation_propagation():
    """EP, which knows nothing of orthogonal inputs, agrees with the exact integrals to a percent."""
    p = posterior(flt.OrthogonalClassification(40, (0.5, 0.5)), 0.05, flt.ReLU())
    exact, ep = p.solve(), p.solve(method="ep")
    assert ep.method == "ep"
    assert len(ep.outliers) == 2
    assert ep.certificate == pytest.approx(1.0, abs=1e-6)
    assert_allclose(ep.dual_field, exact.dual_field, atol=0.02)
    assert_allclose(ep.kernel(1), exact.kernel(1), atol=0.03)


class Wave(flt.Nonlinearity):
    """sin(300 z), faster than the quadrature."""

    def __call__(self, z):
        return flt.namespace(z).sin(300 * z)


class Square(flt.Nonlinearity):
    """z^2."""

    def __call__(self, z):
        return z * z


@pytest.mark.parametrize(("phi", "words"), [(Wave(), "quadrature"), (Square(), "linear growth|faster")])
def test_what_cannot_be_solved_is_refused_by_name(phi, words):
    with pytest.raises(ValueError, match=rf"nonlinearity.*({words})"):
        posterior(flt.OrthogonalClassification(10, (0.5, 0.5)), 0.1, phi).solve()


class Plain(flt.Nonlinearity):
    """max(z, 0) with nothing declared."""

    def __call__(self, z):
        return 0.5 * (z + flt.namespace(z).abs(z))


def test_one_formula_alone_gives_the_full_theory():
    task = flt.OrthogonalClassification(30, (0.5, 0.5))
    plain, stock = (posterior(task, 0.1, phi).solve() for phi in (Plain(), flt.ReLU()))
    assert_allclose(plain.dual_field, stock.dual_field, atol=1e-8)
    assert plain.free_energy == pytest.approx(stock.free_energy, rel=1e-9)
    assert len(plain.outliers) == len(stock.outliers)


def test_the_hot_limit_is_the_prior():
    task = flt.OrthogonalClassification(10, (0.5, 0.5))
    prior = posterior(task, np.inf, flt.ReLU()).solve()
    hot = posterior(task, 1e4, flt.ReLU()).solve()
    assert_allclose(hot.kernel(1), prior.kernel(1), atol=1e-3)
    assert_allclose(prior.kernel(1)[0, :2], [0.5, 1 / (2 * np.pi)], atol=1e-12)
    assert not hot.outliers


def test_predictions_where_nothing_condenses():
    theory = posterior(flt.OrthogonalClassification(10, (0.5, 0.5)), 2.0, flt.ReLU()).solve()
    assert theory.outliers == ()
    assert theory.certificate < 1
    found, known = theory.predict(theory.model.task.inputs), theory.predict()
    assert_allclose(found.mean, known.mean, atol=1e-6)
    assert_allclose(found.variance, known.variance, rtol=0.1)
