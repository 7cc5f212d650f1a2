"""Numbers of docs/theory.md, section 9."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, posterior

import fltheory as flt


@pytest.fixture(scope="module")
def two_classes() -> flt.MeanFieldSolution:
    return posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03).solve()


def test_two_classes_dual_field(two_classes: flt.MeanFieldSolution) -> None:
    first_row = two_classes.dual_field[0]
    np.testing.assert_allclose(first_row, [4.496, -1.519], rtol=0.01)


def test_two_classes_branches(two_classes: flt.MeanFieldSolution) -> None:
    branches = {b.code: b for b in two_classes.branches}
    assert set(branches) == {(1, 0), (0, 1), (1, 1)}
    expected = {(1, 0): 0.499, (0, 1): 0.499, (1, 1): 0.002}
    for code, probability in expected.items():
        assert branches[code].probability == pytest.approx(probability, abs=0.02)
    first = branches[(1, 0)]
    np.testing.assert_allclose(first.readout, [1.928, -0.286], atol=0.03)
    np.testing.assert_allclose(np.sqrt(np.diag(first.readout_covariance)), [0.146, 0.184], atol=0.01)
    np.testing.assert_allclose(first.activations[[0, -1]], [0.920, 0.184], atol=0.005)


def test_two_classes_kernel(two_classes: flt.MeanFieldSolution) -> None:
    kernel = two_classes.kernel(1)
    np.testing.assert_allclose(
        [kernel[0, 1], kernel[0, -1], kernel[0, 0]], [0.4413, 0.1697, 0.467], atol=0.005
    )


def test_two_classes_by_ep() -> None:
    """EP, which knows nothing of orthogonal inputs, agrees with the exact integrals."""
    p = posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03)
    exact, ep = p.solve(), p.solve(method="ep")
    np.testing.assert_allclose(ep.dual_field, exact.dual_field, atol=0.01 * np.abs(exact.dual_field).max())
    np.testing.assert_allclose(ep.kernel(1), exact.kernel(1), atol=0.002)
    assert ep.free_energy == pytest.approx(exact.free_energy, abs=0.05)


def test_a_forgotten_branch_is_noticed(two_classes: flt.MeanFieldSolution) -> None:
    """Negative twin: without one branch the kernel leaves its bounds, and (5) fails."""
    kept = [b for b in two_classes.branches if b.code != (0, 1)]
    total = sum(b.probability for b in kept)
    output = sum(b.probability / total * np.outer(b.activations, b.readout) for b in kept)
    model = two_classes.model
    gap = model.task.targets - model.scaled_temperature * two_classes.dual_field - output
    assert np.abs(gap).max() > 0.2


@pytest.mark.slow
def test_three_classes_without_noise_extrapolated_to_infinite_data() -> None:
    sizes = np.array([60, 120, 240])
    rows, shares, actions = [], [], []
    for n_samples in sizes:
        task = flt.OrthogonalClassification(int(n_samples), (0.5, 0.25, 0.25))
        solution = evolve(posterior(task), temperature=0.0).solve()
        rows.append(solution.dual_field[[0, n_samples // 2, -1]])
        by_code = {b.code: b.probability for b in solution.branches}
        shares.append([by_code[c] for c in ((1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0))])
        actions.append(-solution.free_energy / n_samples)

    def limit(values: object) -> np.ndarray:  # value at 1/P = 0 of the parabola in 1/P
        flat = np.reshape(values, (3, -1))
        return np.array([np.polyfit(1 / sizes, column, 2)[-1] for column in flat.T])

    expected = [[5.5878, -1.9052, -1.9052], [-3.8105, 10.3785, -3.4556], [-3.8105, -3.4556, 10.3785]]
    np.testing.assert_allclose(limit(rows).reshape(3, 3), expected, rtol=0.01)
    np.testing.assert_allclose(limit(shares), [0.333, 0.333, 0.328, 0.006], atol=0.003)
    assert limit(actions)[0] == pytest.approx(-5.526505, rel=1e-3)


def test_linear_network_of_two_layers() -> None:
    task = flt.OrthogonalClassification(60, (0.5, 0.25, 0.25))
    p = flt.DeepNetworkPosterior(task, flt.Linear(), n_hidden_layers=2, width=200, temperature=1e-4)
    solution = p.solve()
    blocks = [solution.kernel(layer)[i, i + 1] for layer in (1, 2) for i in (0, 31)]
    np.testing.assert_allclose(blocks, [0.1828, 0.2812, 1.3685, 1.7488], atol=1e-4)


@pytest.mark.parametrize("n_hidden_layers", [1, 2, 3])
def test_linear_network_without_noise_has_its_closed_form(n_hidden_layers: int) -> None:
    """(9), per eigenmode of G = Y^T K_0^{-1} Y."""
    task = classification(0, noise=1.0)
    p = flt.DeepNetworkPosterior(task, flt.Linear(), n_hidden_layers=n_hidden_layers, temperature=0.0)
    solution = p.solve()
    gram = task.targets.T @ np.linalg.solve(task.gram(), task.targets)
    variance = p.model.readout_variance
    g, modes = np.linalg.eigh(gram)
    x = np.array([_largest_root(n_hidden_layers, value / variance) for value in g])
    stretch = (modes * variance * x) @ modes.T
    np.testing.assert_allclose(solution.readout_covariance, stretch, rtol=1e-6, atol=1e-9)
    for layer in range(1, n_hidden_layers + 1):
        inner = (modes * ((x**layer - 1) / g)) @ modes.T
        expected = task.gram() + task.targets @ inner @ task.targets.T
        np.testing.assert_allclose(solution.kernel(layer), expected, rtol=1e-6, atol=1e-8)


def _largest_root(depth: int, right: float) -> float:
    """x > 1 with x^L (x - 1) = right."""
    polynomial = np.zeros(depth + 2)
    polynomial[0], polynomial[1], polynomial[-1] = 1.0, -1.0, -right
    return float(np.roots(polynomial).real.max())
