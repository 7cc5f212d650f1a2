"""The parts: a hidden layer on its lattice, its core, and the message of the readout layer."""

import numpy as np
import pytest
from attrs import evolve
from scipy.special import logsumexp

import fltheory as flt
from fltheory.meanfield.branches import code_patterns
from fltheory.meanfield.dual import DualProblem
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.core import solve_core
from fltheory.meanfield.general.ep_readout import ReadoutProblem
from fltheory.meanfield.general.lattice import Lattice
from fltheory.meanfield.general.symmetric import coordinates, matrix

PHI = flt.Sigmoid()


def factor(kernel):
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-10 * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])


def small_layer(n_inputs=2, strength=3.0, spacing=1.6):
    """A layer of few inputs under a strong Kt with a remainder, and its lattice."""
    rng = np.random.default_rng(1)
    raw = rng.standard_normal((n_inputs, n_inputs + 3))
    root = factor(raw @ raw.T / (n_inputs + 3))
    pull = rng.standard_normal((n_inputs, 1))
    total = strength * pull @ pull.T + np.diag(rng.uniform(-0.3, 0.3, n_inputs))
    directions = leading_directions(total, 1)
    patterns = np.array([np.zeros(n_inputs), np.ones(n_inputs)])
    return root, ConjugateKernel.of(total, directions), Lattice(root, PHI, patterns, spacing)


def test_two_inputs_against_a_dense_grid():
    """P = 2: log Z_1 and <phi phi^T> of exp(phi^T Kt phi / 2), by brute force; EP is off by 1e-3."""
    root, conjugate, lattice = small_layer()
    state = lattice(conjugate)
    x = np.linspace(-7, 7, 301)
    g = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    phi = PHI(g @ root.T)
    log_prior = -0.5 * (g**2).sum(1)
    log_weight = log_prior + 0.5 * ((phi @ conjugate.total) * phi).sum(1)
    weight = np.exp(log_weight - logsumexp(log_weight))
    assert state.log_partition == pytest.approx(logsumexp(log_weight) - logsumexp(log_prior), abs=3e-3)
    np.testing.assert_allclose(state.kernel, (phi * weight[:, None]).T @ phi, atol=2e-3)


def test_the_lattice_spacing_does_not_matter():
    root, conjugate, lattice = small_layer(6)
    fine = Lattice(root, PHI, lattice.patterns, 0.8)(conjugate)
    coarse = lattice(conjugate)
    assert coarse.log_partition == pytest.approx(fine.log_partition, abs=1e-3)
    np.testing.assert_allclose(coarse.kernel, fine.kernel, atol=1e-3)
    wide = Lattice(root, PHI, lattice.patterns, 5.0)(conjugate)  # too wide: seen
    assert abs(wide.log_partition - fine.log_partition) > 0.01


def test_no_peak_is_missed_without_seeds():
    """Flood fill from the origin alone finds what it finds from the codes."""
    root, conjugate, lattice = small_layer(6, strength=8.0)
    blind = Lattice(root, PHI, np.zeros((1, 6)), 1.6)(conjugate)
    assert blind.log_partition == pytest.approx(lattice(conjugate).log_partition, abs=1e-3)


def test_a_conjugate_kernel_is_the_sum_of_its_parts():
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((8, 8))
    total = raw + raw.T
    parts = ConjugateKernel.of(total, leading_directions(total, 2))
    np.testing.assert_allclose(parts.total, total, atol=1e-12)
    v = parts.directions
    np.testing.assert_allclose(v.T @ (parts.remainder) @ v, np.zeros((2, 2)), atol=1e-10)
    diagonal, remainder = parts.single()
    rest = parts.root @ parts.root.T + np.diag(diagonal) + remainder
    np.testing.assert_allclose(rest, total, atol=1e-12)


def test_factor_analysis_finds_low_rank_and_diagonal():
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((30, 2))
    total = loadings @ loadings.T + np.diag(rng.uniform(-2.0, 2.0, 30))
    found = leading_directions(total, 2)
    exact = np.linalg.qr(loadings)[0]
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-5)
    plain = np.linalg.eigh(total)[1][:, -2:]  # without the diagonal: off
    assert np.abs(plain @ plain.T - exact @ exact.T).max() > 1e-2


def test_the_response_is_the_derivative_of_the_overlap():
    _, conjugate, lattice = small_layer(6)
    step = 1e-3
    there, back = (lattice(evolve(conjugate, core=conjugate.core + s * step)) for s in (1, -1))
    here = lattice(conjugate)
    slope = (there.log_partition - back.log_partition) / (2 * step)
    assert slope == pytest.approx(0.5 * here.overlap[0, 0], rel=2e-2)  # EP's kernel is not quite its gradient
    change = (there.overlap - back.overlap)[0, 0] / (2 * step)
    assert here.response()[0, 0] == pytest.approx(change, rel=0.1)
    moved = (there.kernel - back.kernel) / (2 * step)
    np.testing.assert_allclose(here.kernel_directions()[0], moved, atol=0.15 * np.abs(moved).max())


def test_the_core_gives_the_overlap_that_is_asked_for():
    _, conjugate, lattice = small_layer(6)
    wanted = 0.9 * lattice(conjugate).overlap
    found = solve_core(lattice, conjugate, wanted, tolerance=1e-6, max_iterations=20)
    assert found.error < 1e-6
    np.testing.assert_allclose(found.state.overlap, wanted, rtol=1e-6)


def test_the_message_is_twice_the_derivative_of_s():
    """In any direction of K_1, against finite differences of the solved readout layer; sigma_2^2 included."""
    task, variance = flt.OrthogonalClassification(20, (0.5, 0.5)), 1.1
    template = DualProblem(factor(task.gram()), task.targets, 0.05, 1 / 20, PHI, 0, 0.75)
    problem = ReadoutProblem(template, variance, 1e-8)
    coded = code_patterns(task.targets)
    kernel = 0.5 * PHI.gaussian_kernel(task.gram()) + 0.25 * coded[1:3].T @ coded[1:3]
    here = problem.first(kernel, None, 40)
    change = np.random.default_rng(0).standard_normal(kernel.shape)
    change = 1e-5 * (change + change.T)
    there, back = (here.again(kernel + sign * change) for sign in (1, -1))
    slope = 0.5 * (there.point.value - back.point.value)
    assert slope == pytest.approx(0.5 * (here.message * change).sum(), rel=2e-3)


def test_coordinates_keep_scalar_products():
    rng = np.random.default_rng(0)
    one, two = (raw + raw.T for raw in rng.standard_normal((2, 3, 3)))
    assert coordinates(one) @ coordinates(two) == pytest.approx((one * two).sum())
    np.testing.assert_allclose(matrix(coordinates(one), 3), one)
