"""Linear networks at finite width: the terms of order P / N, docs/theory.md section 4.4."""

import math

import numpy as np
import pytest
from attrs import evolve
from cases import few, seeds
from hypothesis import given, strategies as st
from linear_networks import linear, solved

import fltheory as flt
from fltheory.meanfield.neuron import NewInputs


def regression(seed: int, noise: float, n_samples: int = 12) -> flt.ArrayTask:
    """A task that a linear network fits exactly only where it has as many inputs."""
    rng = np.random.default_rng(seed)
    n_inputs = 2 * n_samples if noise == 0 else n_samples // 2
    return flt.ArrayTask(rng.standard_normal((n_samples, n_inputs)), rng.standard_normal((n_samples, 2)))


linear_cases = st.tuples(st.integers(1, 4), st.sampled_from((0.0, 0.02, 0.5)), seeds)


def test_a_network_as_wide_as_its_data() -> None:
    """N = P = 50, L = 3, m = 1, T = 0: <R> is an integral over three chi-squares."""
    n, depth = 50, 3
    right = 3.38**3 * 2.38  # x^L (x - 1), so that (9) gives x = 3.38
    task = flt.ArrayTask(math.sqrt(n) * np.eye(n), math.sqrt(right / n) * np.ones(n))
    x = np.linspace(0.6, 7.0, 120)
    each = (n / 2 - 1) * np.log(x) - n * x / 2
    product = x[:, None, None] * x[:, None] * x
    exponent = each[:, None, None] + each[:, None] + each - n / 2 * (np.log(product) + right / product)
    weights = np.exp(exponent - exponent.max())
    exact = (weights.sum((1, 2)) @ x) / weights.sum()
    p = linear(task, depth=depth, width=n)
    corrected_growth, growth = (solved(p, flag).growth[0, 0] for flag in (True, False))
    assert growth == pytest.approx(3.38, abs=1e-9)
    assert corrected_growth == pytest.approx(right**0.25, abs=1e-9)  # (9') at alpha = 1
    assert abs(corrected_growth - exact) < 0.02 < 0.25 < abs(growth - exact)


def test_two_layers() -> None:
    """The case of section 9: blocks of the kernels with the terms of order P / N."""
    task = flt.OrthogonalClassification(60, (0.5, 0.25, 0.25))
    p = flt.DeepNetworkPosterior(task, flt.Linear(), n_hidden_layers=2, width=200, temperature=1e-4)
    solution = solved(p)
    blocks = [solution.kernel_parts(layer).total[i, i + 1] for layer in (1, 2) for i in (0, 31)]
    np.testing.assert_allclose(blocks, [0.1891, 0.2936, 1.395, 1.793], atol=5e-4)


@given(linear_cases)
@few
def test_the_linear_free_energy_is_a_potential(case: tuple[int, float, int]) -> None:
    """dS/dY = -t and dS/d log sigma_a^2 = tr (R - 1) / 2, of (9a) as it stands."""
    depth, noise, seed = case
    task = regression(seed, noise)
    p = linear(task, depth=depth, noise=noise, variances=tuple((1.1, 0.7, 1.3, 0.9)[:depth]))
    solution, step = solved(p), 1e-5
    direction = np.random.default_rng(seed + 1).standard_normal(task.targets.shape)
    values = [
        solved(evolve(p, task=flt.ArrayTask(task.inputs, task.targets + sign * step * direction))).action
        for sign in (1, -1)
    ]
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(-(solution.field * direction).sum(), rel=1e-5, abs=1e-6)
    values = [
        solved(evolve(p, prior=evolve(p.prior, readout_variance=math.exp(sign * step)))).action
        for sign in (1, -1)
    ]
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(0.5 * np.trace(solution.growth - np.eye(2)), rel=1e-5, abs=1e-6)


@given(linear_cases)
@few
def test_linear_layers_report_one_output(case: tuple[int, float, int]) -> None:
    """(9d), (9e): each layer's law has the output Y - N T t and the kernel that it passes on."""
    depth, noise, seed = case
    p = linear(
        regression(seed, noise), depth=depth, noise=noise, variances=tuple((1.1, 0.7, 1.3, 0.9)[:depth])
    )
    solution = solved(p)
    assert solution.residual < 1e-8 and 0 <= solution.certificate <= 1
    output = p.task.targets - noise * solution.field
    kernel = p.model.input_kernel
    np.testing.assert_allclose(kernel @ solution.field @ solution.stretch(1), output, atol=1e-9)
    for layer in range(1, depth + 1):
        below = solution.kernel_below(layer)
        np.testing.assert_allclose(below @ solution.field @ solution._responses[layer - 1], output, atol=1e-8)
        total = below + output @ np.linalg.solve(solution.stretch(layer), output.T)
        np.testing.assert_allclose(solution.kernel_parts(layer).total, total, atol=1e-8)
        tilted = np.linalg.solve(np.eye(len(below)) - below @ solution.conjugate_kernel(layer), below)
        np.testing.assert_allclose(tilted, total, rtol=1e-7, atol=1e-7)
        new = NewInputs(kernel, kernel)
        np.testing.assert_allclose(solution.kernel(layer, new), total, atol=1e-8)
    np.testing.assert_allclose(solution.predict(NewInputs(kernel, kernel))[0], output, atol=1e-9)


def test_linear_neurons_are_drawn_from_their_law() -> None:
    p = linear(regression(3, 0.5), depth=2, noise=0.5, width=12)
    solution, n = solved(p), 200_000
    z, readouts = solution.draw(n, 2, np.random.default_rng(0))
    assert readouts is not None
    output = p.task.targets - 0.5 * solution.field
    np.testing.assert_allclose(z.T @ readouts / n, output, atol=0.03)
    np.testing.assert_allclose(z.T @ z / n, solution.kernel_parts(2).total, atol=0.15)
    at_infinite_width = solved(p, finite_width=False)  # negative twin
    assert np.abs(z.T @ readouts / n - (p.task.targets - 0.5 * at_infinite_width.field)).max() > 0.03
    assert np.abs(z.T @ z / n - at_infinite_width.kernel_parts(2).total).max() > 0.15


def test_phi_of_slope_two_is_a_rescaled_network() -> None:
    class Double(flt.Nonlinearity):
        def __call__(self, z: np.ndarray) -> np.ndarray:
            return 2.0 * z

    task = regression(1, 0.3)
    p = linear(task, depth=2, noise=0.3, variances=(1.0, 0.5))
    double = evolve(p, nonlinearity=Double())
    same = evolve(
        p, prior=flt.GaussianPrior(weight_variance=(1.0, 2.0), readout_variance=4.0, scaling="none")
    )
    first, second = solved(double), solved(same)
    np.testing.assert_allclose(first.field, second.field, rtol=1e-9)
    np.testing.assert_allclose(first.kernel_parts(2).total, 4 * second.kernel_parts(2).total, rtol=1e-9)
    np.testing.assert_allclose(first.conjugate_kernel(2), second.conjugate_kernel(2) / 4, rtol=1e-9)
    np.testing.assert_allclose(first.conjugate_kernel(1), second.conjugate_kernel(1) / 4, rtol=1e-9)


def test_infinite_width_is_the_limit() -> None:
    p = linear(regression(2, 0.3), depth=3, noise=0.3, width=10**9)
    wide, limit = solved(p), solved(p, finite_width=False)
    assert limit.inverse_width == 0.0
    for name in ("field", "growth", "certificate", "residual"):
        np.testing.assert_allclose(getattr(wide, name), getattr(limit, name), atol=1e-7)
    for layer in (1, 2, 3):
        np.testing.assert_allclose(wide.kernel_parts(layer).total, limit.kernel_parts(layer).total, rtol=1e-6)
        np.testing.assert_allclose(wide.conjugate_kernel(layer), limit.conjugate_kernel(layer), atol=1e-7)
    np.testing.assert_allclose(wide.training_variance(), limit.training_variance(), rtol=1e-6)


def test_a_free_output_needs_width() -> None:
    """At T = 0 a zero output of a network with N <= rank K_0 has no law."""
    task = regression(0, 0.0)
    zero = flt.ArrayTask(task.inputs, task.targets * [1, 0])
    with pytest.raises(ValueError, match=r"width: expected above 12.* got 12"):
        solved(linear(zero, width=12))
    assert solved(linear(zero, width=13)).growth[1, 1] == pytest.approx(1 / 13)
    assert solved(linear(task, width=12)).residual < 1e-8
    warm = linear(zero, width=6, noise=0.5)
    assert 0 < np.linalg.eigvalsh(solved(warm).growth).min() < 1
