"""Class-block matrices, the symmetries of a task, and the law of a layer over its latents."""

import numpy as np
import pytest
from scipy import integrate

import fltheory as flt
from fltheory.meanfield.deep.blocks import ClassBlocks, ClassSymmetry
from fltheory.meanfield.deep.layer import Layer
from fltheory.meanfield.deep.sites import ClassSites
from fltheory.meanfield.quadrature.groups import GroupedTargets

COUNTS = np.array([2.0, 3.0])
MEMBER = np.array([0, 0, 1, 1, 1])


def groups(targets, counts, variances=None):
    counts = np.asarray(counts, dtype=float)
    variances = np.ones(len(counts)) if variances is None else np.asarray(variances)
    return GroupedTargets(
        np.asarray(targets, dtype=float),
        variances,
        counts,
        np.repeat(np.arange(len(counts)), counts.astype(int)),
    )


def test_blocks_are_the_matrix_over_the_inputs():
    one = ClassBlocks(np.array([[1.0, 0.2], [0.2, 0.7]]), np.array([0.3, 0.4]))
    other = ClassBlocks(np.array([[0.5, -0.1], [-0.1, 0.6]]), np.array([-0.2, 0.1]))
    expected = np.trace(one.expand(MEMBER) @ other.expand(MEMBER))
    assert one.trace_with(other, COUNTS) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(one.root @ one.root, one.blocks, atol=1e-12)


@pytest.mark.parametrize(
    ("targets", "counts", "variances", "n_symmetries"),
    [
        (np.eye(2), [3, 3], None, 2),
        (np.eye(3), [4, 2, 2], None, 2),
        (np.eye(3), [2, 2, 2], None, 6),
        (np.eye(2), [3, 3], [1.0, 1.1], 1),
        ([[1.0, 0.0], [0.6, 0.8], [-0.2, 0.1]], [2, 2, 2], None, 1),
        ([[1.0], [-1.0]], [2, 2], None, 2),
    ],
)
def test_symmetries_are_found(targets, counts, variances, n_symmetries):
    task = groups(targets, counts, variances)
    symmetry = ClassSymmetry.of(task)
    assert len(symmetry.permutations) == n_symmetries
    for permutation, rotation in zip(symmetry.permutations, symmetry.rotations, strict=True):
        np.testing.assert_allclose(permutation @ task.targets, task.targets @ rotation, atol=1e-12)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-12)
    field = symmetry.of_field(np.random.default_rng(0).standard_normal(task.targets.shape))
    basis = symmetry.field_basis
    np.testing.assert_allclose((basis.T @ (basis @ field.ravel())).reshape(field.shape), field, atol=1e-12)


def test_packing_keeps_what_is_symmetric_and_averages_the_rest():
    symmetry = ClassSymmetry.of(groups(np.eye(3), [4, 2, 2]))
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, 3))
    matrix = ClassBlocks(half @ half.T, rng.random(3))
    back = symmetry.unpack(symmetry.pack(matrix, 7.0), 7.0)
    mean = symmetry.of_blocks(matrix)
    np.testing.assert_allclose(back.blocks, mean.blocks, atol=1e-12)
    np.testing.assert_allclose(back.diagonal, mean.diagonal, atol=1e-12)
    assert symmetry.n_unknowns == 4 + 2
    assert np.abs(mean.blocks - matrix.blocks).max() > 0.1  # the negative twin: it does average


def test_moments_of_one_input_are_derivatives_of_its_partition_function():
    rng = np.random.default_rng(1)
    fields, means, step = rng.standard_normal((4, 2)), rng.standard_normal((4, 2)), 1e-4
    variances, curvatures = np.array([0.7, 0.3]), np.array([-0.8, 0.4])

    def log_z(h, u):
        sites = ClassSites(variances, flt.Sigmoid(), u, curvatures)
        return sites.cumulants(h)[0]

    at = ClassSites(variances, flt.Sigmoid(), means, curvatures).moments(fields)
    in_h = (log_z(fields + step, means) - log_z(fields - step, means)) / (2 * step)
    in_u = (log_z(fields, means + step) - log_z(fields, means - step)) / (2 * step)
    twice = (log_z(fields, means + step) - 2 * at.log_z + log_z(fields, means - step)) / step**2
    np.testing.assert_allclose(at.mean, in_h, atol=1e-7)
    np.testing.assert_allclose(at.push, in_u, atol=1e-7)
    np.testing.assert_allclose(at.spread, twice, atol=1e-5)


def test_a_layer_agrees_with_direct_integration_and_its_messages_with_differences():
    """Two classes, no field on the second: the latents that matter are two, integrated on a grid."""
    conjugate = ClassBlocks(np.diag([0.6, 0.0]), np.array([-0.2, 0.0]))

    def layer(kernel):
        return Layer(conjugate.root, kernel.root, kernel.diagonal, conjugate.diagonal, COUNTS, flt.Sigmoid())

    kernel = ClassBlocks(np.diag([0.5, 0.2]), np.array([0.3, 0.4]))
    found = layer(kernel)
    images = np.eye(4)[None]
    state = found.at(found.find_points(images, np.zeros((1, 4)), 1 << 16, 0))

    def density(v, x):
        return float(np.exp(found.log_density(np.array([[x, 0.0, v, 0.0]]))[0]) * 2 * np.pi)

    expected = integrate.dblquad(density, -7, 7, -7, 7, epsabs=1e-7)[0]
    assert state.log_partition == pytest.approx(np.log(expected), abs=2e-4)
    step = 1e-3
    other = layer(ClassBlocks(kernel.blocks + np.diag([step, 0.0]), kernel.diagonal)).at(state.points)
    slope = (other.log_partition - state.log_partition) / step
    pairs, single = COUNTS[0] ** 2 * state.message.blocks[0, 0], COUNTS[0] * state.message.diagonal[0]
    assert slope == pytest.approx(0.5 * (pairs + single), abs=2e-3)
    assert abs(slope - 0.5 * pairs) > 0.05  # the negative twin: the single inputs' part is seen


def test_hidden_curvature_agrees_with_differences():
    rng = np.random.default_rng(2)
    half = rng.standard_normal((2, 2))
    kernel = ClassBlocks(half @ half.T, np.array([0.3, 0.4]))
    layer = Layer(
        rng.standard_normal((2, 3)), kernel.root, kernel.diagonal, np.array([0.2, -0.5]), COUNTS, flt.Tanh()
    )
    x, step = rng.standard_normal((1, 5)), 1e-5
    _, gradient, hessian = layer.action(x)
    for index in range(5):
        ahead, behind = x.copy(), x.copy()
        ahead[0, index] += step
        behind[0, index] -= step
        up, down = layer.action(ahead), layer.action(behind)
        assert gradient[0, index] == pytest.approx((up[0] - down[0])[0] / (2 * step), abs=1e-7)
        np.testing.assert_allclose(hessian[0, index], (up[1] - down[1])[0] / (2 * step), atol=1e-6)
