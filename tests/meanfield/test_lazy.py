"""Lazy networks against formulas of Gaussian processes, laws of the theory, and sampled networks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import fltheory as flt
from fltheory.meanfield.lazy import LazyPosterior, prior_kernels, solve_lazy
from tests.meanfield.cases import few, seeds

PHIS = (flt.Sigmoid(), flt.ReLU(), flt.Tanh(), flt.GELU(), flt.LeakyReLU(0.2), flt.Softplus(2.0))
DRAWS = 200_000


def lazy(
    phi: flt.Nonlinearity,
    temperature: float = 0.3,
    *,
    depth: int = 1,
    seed: int = 0,
    n_samples: int = 7,
    width: int = 50,
    weight_variance: float | tuple[float, ...] = 1.3,
) -> flt.DeepNetworkPosterior:
    rng = np.random.default_rng(seed)
    inputs, targets = rng.standard_normal((n_samples, 9)), rng.standard_normal((n_samples, 2))
    return flt.DeepNetworkPosterior(
        flt.ArrayTask(inputs, targets),
        phi,
        flt.GaussianPrior(weight_variance=weight_variance, readout_variance=0.8),
        n_hidden_layers=depth,
        width=width,
        temperature=temperature,
        readout_scaling="lazy",
    )


def solve(posterior: flt.DeepNetworkPosterior) -> flt.MeanFieldSolution:
    return solve_lazy(posterior.model)


def new_inputs(n: int = 5, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 9))


def action(posterior: flt.DeepNetworkPosterior) -> float:
    return -solve(posterior).free_energy


# Kernels -----------------------------------------------------------------------------------------


@few
@given(seed=seeds, phi=st.sampled_from(PHIS), depth=st.integers(1, 3))
def test_kernels_are_those_of_the_prior_layer_by_layer(seed: int, phi: flt.Nonlinearity, depth: int) -> None:
    variances = (1.3, 0.7, 2.0)[:depth]
    theory = solve(lazy(phi, depth=depth, seed=seed, weight_variance=variances))
    covariance = theory.kernel(0)
    for layer, above in zip(range(1, depth + 1), (*variances[1:], 1.0), strict=True):
        kernel = flt.Nonlinearity.gaussian_kernel(phi, covariance)  # the numeric default
        assert_allclose(theory.kernel(layer), kernel, rtol=1e-10)
        assert_allclose(theory.decomposition(layer).kernel, kernel, rtol=1e-10)
        covariance = above * kernel


def test_kernels_of_a_linear_network_are_the_input_kernel_times_variances() -> None:
    theory = solve(lazy(flt.Linear(), depth=3, weight_variance=(1.3, 0.7, 2.0)))
    for layer, factor in ((1, 1.0), (2, 0.7), (3, 1.4)):
        assert_allclose(theory.kernel(layer), factor * theory.kernel(0), rtol=1e-14)


@pytest.mark.parametrize("phi", PHIS, ids=repr)
def test_drawn_neurons_have_these_kernels(phi: flt.Nonlinearity) -> None:
    posterior = lazy(phi, depth=2)
    theory = solve(posterior)
    for layer in (1, 2):
        drawn = theory.neurons(DRAWS, layer, seed=layer)
        products = drawn.activations[:, :, None] * drawn.activations[:, None, :]
        error = products.std(0) / math.sqrt(DRAWS)
        assert (np.abs(products.mean(0) - theory.kernel(layer)) < 5 * error).all()
        # negative twin: the kernel of another weight variance is told apart
        other = solve(evolve(posterior, prior=flt.GaussianPrior(weight_variance=1.4, readout_variance=0.8)))
        assert (np.abs(products.mean(0) - other.kernel(layer)) > 5 * error).any()
    assert drawn.readouts is not None
    assert_allclose(drawn.readouts.std(0), math.sqrt(0.8), rtol=0.01)
    assert theory.neurons(3, 1).readouts is None


# Predictions -------------------------------------------------------------------------------------


@few
@given(seed=seeds, phi=st.sampled_from(PHIS), depth=st.integers(1, 3), temperature=st.floats(1e-3, 10))
def test_predictions_are_those_of_the_gaussian_process(
    seed: int, phi: flt.Nonlinearity, depth: int, temperature: float
) -> None:
    posterior = lazy(phi, temperature, depth=depth, seed=seed)
    theory, x = solve(posterior), new_inputs(seed=seed)
    joint = posterior.model.kernel_between(*2 * [np.concatenate([posterior.task.inputs, x])])
    kernel = 0.8 * prior_kernels(posterior.model, joint)[-1]
    train, cross, own = kernel[:7, :7], kernel[7:, :7], kernel[7:, 7:]
    ridge = np.linalg.inv(train + temperature * np.eye(7))
    found = theory.predict(x)
    assert_allclose(found.mean, cross @ ridge @ posterior.task.targets, rtol=1e-8, atol=1e-8)
    variance = np.diagonal(own - cross @ ridge @ cross.T)
    assert_allclose(found.variance, np.stack([variance] * 2, axis=1), rtol=1e-7, atol=1e-9)
    assert_allclose(theory.kernel(depth, x), own / 0.8, rtol=1e-10)
    assert theory.residual < 1e-10


@pytest.mark.parametrize("temperature", [0.0, 0.1, math.inf])
@pytest.mark.parametrize("phi", [*PHIS, flt.Linear()], ids=repr)
def test_training_inputs_are_answered_alike_as_new_ones(phi: flt.Nonlinearity, temperature: float) -> None:
    posterior = lazy(phi, temperature, depth=2)
    theory = solve(posterior)
    known, new = theory.predict(), theory.predict(posterior.task.inputs)
    assert_allclose(new.mean, known.mean, atol=1e-8)
    assert_allclose(new.variance, known.variance, atol=1e-8)
    for layer in (0, 1, 2):
        assert_allclose(theory.kernel(layer, posterior.task.inputs), theory.kernel(layer), rtol=1e-12)


def test_many_new_inputs_are_answered_as_one_by_one() -> None:
    theory, x = solve(lazy(flt.ReLU())), new_inputs(1100)
    together, last = theory.predict(x), theory.predict(x[-3:])
    assert_allclose(together.mean[-3:], last.mean, rtol=1e-12)
    assert_allclose(together.variance[-3:], last.variance, rtol=1e-10)


def test_the_variance_is_of_order_one_whatever_the_width() -> None:
    for x in (None, new_inputs()):
        narrow, wide = (solve(lazy(flt.Sigmoid(), width=width)).predict(x) for width in (10, 1000))
        assert_allclose(narrow.variance, wide.variance, rtol=1e-12)
        assert narrow.variance.min() > 1e-3


# Temperatures ------------------------------------------------------------------------------------


def test_zero_temperature_fits_the_targets_and_leaves_no_variance_there() -> None:
    posterior = lazy(flt.Tanh(), 0.0)
    known = solve(posterior).predict()
    assert_allclose(known.mean, posterior.task.targets, rtol=1e-12)
    assert known.variance.max() < 1e-12
    near = solve(evolve(posterior, temperature=1e-9))
    assert_allclose(near.dual_field, solve(posterior).dual_field, rtol=1e-6)


def test_infinite_temperature_is_the_prior() -> None:
    theory, x = solve(lazy(flt.Tanh(), math.inf)), new_inputs()
    assert not theory.dual_field.any() and not theory.predict(x).mean.any()
    assert theory.free_energy == theory.residual == 0.0
    expected = 0.8 * np.diagonal(theory.kernel(1, x))
    assert_allclose(theory.predict(x).variance, np.stack([expected] * 2, axis=1), rtol=1e-12)
    hot = solve(lazy(flt.Tanh(), 1e9)).predict(x)
    assert_allclose(hot.variance, theory.predict(x).variance, rtol=1e-6)


def repeated(conflict: bool, temperature: float = 0.0) -> flt.DeepNetworkPosterior:
    posterior = lazy(flt.Sigmoid(), temperature, depth=2)
    inputs, targets = posterior.task.inputs.copy(), posterior.task.targets.copy()
    inputs[3] = inputs[5]
    if not conflict:
        targets[3] = targets[5]
    return evolve(posterior, task=flt.ArrayTask(inputs, targets))


def test_equal_inputs_are_fitted_at_zero_temperature_if_their_targets_agree() -> None:
    posterior = repeated(conflict=False)
    theory = solve(posterior)
    assert_allclose(theory.predict().mean, posterior.task.targets, atol=1e-8)
    assert theory.residual < 1e-8
    assert_allclose(theory.dual_field[3], theory.dual_field[5], atol=1e-6)
    with pytest.raises(ValueError, match=r"^temperature: .*\(inputs 3 and 5 are equal but their targets"):
        solve(repeated(conflict=True))
    assert solve(repeated(conflict=True, temperature=1e-3)).residual < 1e-8


def test_a_linear_network_of_low_rank_is_refused_at_zero_temperature() -> None:
    with pytest.raises(ValueError, match=r"^temperature: .* rank 9 of 12"):
        solve(lazy(flt.Linear(), 0.0, n_samples=12))


# Laws --------------------------------------------------------------------------------------------


@few
@given(seed=seeds, phi=st.sampled_from(PHIS))
def test_derivatives_of_the_action(seed: int, phi: flt.Nonlinearity) -> None:
    """Laws 3 and 4."""
    posterior, step = lazy(phi, 0.4, depth=2, seed=seed), 1e-4
    theory, task = solve(posterior), posterior.task
    t, y = theory.dual_field, task.targets
    up, down = (action(evolve(posterior, temperature=0.4 + s)) for s in (step, -step))
    assert_allclose((up - down) / (2 * step), 0.5 * (t**2).sum(), rtol=1e-5)
    push = np.random.default_rng(seed).standard_normal(y.shape)
    up, down = (
        action(evolve(posterior, task=flt.ArrayTask(task.inputs, y + s * push))) for s in (step, -step)
    )
    assert_allclose((up - down) / (2 * step), -(t * push).sum(), rtol=1e-5, atol=1e-8)
    prior = posterior.prior
    up, down = (
        action(evolve(posterior, prior=evolve(prior, readout_variance=0.8 * math.exp(s))))
        for s in (step, -step)
    )
    assert_allclose((up - down) / (2 * step), 0.5 * (t * (y - 0.4 * t)).sum(), rtol=1e-5)


def test_the_evidence_is_the_density_of_the_targets() -> None:
    posterior = lazy(flt.ReLU(), 0.3)
    neuron = LazyPosterior(posterior.model)
    covariance = 0.8 * neuron.kernels[-1] + 0.3 * np.eye(7)
    density = sum(multivariate_normal(cov=covariance).logpdf(y) for y in posterior.task.targets.T)
    assert neuron.log_evidence == pytest.approx(density, rel=1e-10)
    assert LazyPosterior(lazy(flt.ReLU(), math.inf).model).log_evidence == -math.inf


def small_target_field(posterior: flt.DeepNetworkPosterior, factor: float) -> np.ndarray:
    """t / c of the non-lazy network with targets c Y at N T = T, by its own solver."""
    task = flt.ArrayTask(posterior.task.inputs, factor * posterior.task.targets)
    temperature, prior = posterior.temperature / posterior.width, evolve(posterior.prior, scaling="none")
    non_lazy = evolve(posterior, task=task, temperature=temperature, prior=prior, readout_scaling="non-lazy")
    return non_lazy.solve(tolerance=1e-9).dual_field / factor


def test_a_non_lazy_network_with_small_targets_is_lazy() -> None:
    """Law 18: Y -> c Y, c -> 0; the gap falls like c^2."""
    linear = lazy(flt.Linear(), 0.3)
    assert_allclose(small_target_field(linear, 1e-3), solve(linear).dual_field, rtol=1e-4)
    bounded = lazy(flt.Sigmoid(), 0.3)
    orthogonal = math.sqrt(9) * np.eye(9)[:7]  # solved by exact integrals
    bounded = evolve(bounded, task=flt.ArrayTask(orthogonal, bounded.task.targets))
    far, near = (small_target_field(bounded, factor) for factor in (0.2, 0.1))
    expected = solve(bounded).dual_field
    size = np.abs(expected).max()
    assert np.abs((4 * near - far) / 3 - expected).max() < 2e-3 * size
    assert np.abs(far - expected).max() > 20e-3 * size


def test_one_branch_and_no_outliers() -> None:
    theory = solve(lazy(flt.ReLU(), depth=2))
    (branch,) = theory.branches
    assert branch.probability == 1.0 and not branch.readout.any()
    assert_allclose(branch.readout_covariance, 0.8 * np.eye(2))
    z_variance = 1.3 * np.diagonal(theory.kernel(1))
    assert_allclose(branch.activations, np.sqrt(z_variance / (2 * math.pi)), rtol=1e-12)
    assert theory.outliers == () and theory.certificate == 0.0
    assert {theory.symmetry(1), theory.symmetry(2)} == {"intact"}
    assert not theory.conjugate_kernel(1).any()
    assert_allclose(theory.conjugate_kernel(2), 0.8 * theory.dual_field @ theory.dual_field.T)


# Networks ----------------------------------------------------------------------------------------


WIDTHS = (50, 100, 200)


def outputs(answer: flt.Representation) -> np.ndarray:
    """Mean and variance of the outputs on new inputs, and the kernels between them, in one row."""
    found = answer.predict(new_inputs(3))
    kernels = [answer.kernel(layer, new_inputs(3))[np.triu_indices(3)] for layer in (1, 2)]
    return np.concatenate([found.mean.ravel(), found.variance[:, 0], *kernels])


@pytest.fixture(scope="module")
def limit() -> tuple[flt.DeepNetworkPosterior, np.ndarray, np.ndarray]:
    """``outputs`` of sampled networks at infinite width, by the fit g + c / N, and standard errors."""
    posterior, rows = lazy(flt.Sigmoid(), 0.1, depth=2, n_samples=4), []
    for width in WIDTHS:
        at_width = posterior.at_width(width)
        runs = [at_width.sample(n_draws=100, n_chains=4, seed=width + s, progress=False) for s in range(6)]
        rows.append([outputs(run) for run in runs])
    mean, error = np.mean(rows, axis=1), np.std(rows, axis=1, ddof=1) / math.sqrt(6)  # (widths, quantities)
    design = np.stack([np.ones(3), 1 / np.array(WIDTHS)], axis=1)
    weighted = design / error.T[..., None]  # (quantities, widths, 2)
    covariance = np.linalg.inv(weighted.mT @ weighted)
    fit = covariance @ weighted.mT @ (mean / error).T[..., None]
    return posterior, fit[:, 0, 0], np.sqrt(covariance[:, 0, 0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_networks_tend_to_the_gaussian_process(
    limit: tuple[flt.DeepNetworkPosterior, np.ndarray, np.ndarray],
) -> None:
    posterior, found, error = limit
    expected = outputs(solve(posterior))
    assert (np.abs(found - expected) < 5 * error).all(), np.abs(found - expected) / error
    # the smallest error that this would detect
    assert (5 * error < 0.05 * np.abs(expected).max()).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: evolve(p, temperature=0.12),
        lambda p: evolve(p, prior=evolve(p.prior, readout_variance=0.85)),
        lambda p: evolve(p, prior=evolve(p.prior, weight_variance=1.4)),
    ],
    ids=["temperature", "readout variance", "weight variance"],
)
def test_another_gaussian_process_is_rejected(
    wrong: Callable[[flt.DeepNetworkPosterior], flt.DeepNetworkPosterior],
    limit: tuple[flt.DeepNetworkPosterior, np.ndarray, np.ndarray],
) -> None:
    posterior, found, error = limit
    assert (np.abs(found - outputs(solve(wrong(posterior)))) > 5 * error).any()
