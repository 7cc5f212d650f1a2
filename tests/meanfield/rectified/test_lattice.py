"""log Z of a layer and its derivatives: against differences, plain sampling and finer lattices."""

import numpy as np
import pytest
from attrs import evolve
from numpy.testing import assert_allclose

from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.drawing import draw_preactivations
from fltheory.meanfield.rectified.lattice import LayerProblem
from fltheory.meanfield.rectified.nodes import Lattice
from fltheory.meanfield.rectified.sites import OutsideDomainError

N_CLASSES = (2, 3)


def layer(n_classes: int, *, first: bool = False, lattice: Lattice | None = None) -> LayerProblem:
    """Classes of different sizes under moderate fields, ReLU."""
    counts = np.array([8.0, 12.0, 5.0])[:n_classes]
    mixing = np.array([[1.0, -0.4, 0.1], [-0.4, 0.9, -0.2], [0.1, -0.2, 0.8]])[:n_classes, :n_classes]
    conjugate = ClassMatrix(0.06 * mixing / np.sqrt(np.outer(counts, counts)), np.full(n_classes, -0.02))
    shared = np.array([[0.5, 0.2, 0.25], [0.2, 0.4, 0.15], [0.25, 0.15, 0.6]])[:n_classes, :n_classes]
    diagonal = np.array([0.6, 0.5, 0.7])[:n_classes]
    below = ClassMatrix(np.zeros_like(shared) if first else shared, diagonal)
    chosen = Lattice(reach=9.0, spacing=0.6, cut=6.0) if lattice is None else lattice
    return LayerProblem(counts, conjugate, below, (0.0, 1.0), chosen)


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_kernel_and_message_are_derivatives(n_classes: int) -> None:
    """tr dM/2 of log Z for a change M of Kt and of K, of blocks and diagonal."""
    here = layer(n_classes)
    rng, step = np.random.default_rng(0), 1e-5
    change = rng.normal(size=(n_classes, n_classes))
    change = ClassMatrix(change + change.T, rng.normal(size=n_classes))
    for name, expected in (("conjugate", here.kernel), ("below", here.message)):
        scale = np.abs(getattr(here, name).blocks).max()
        ends = [
            evolve(here, **{name: getattr(here, name) + change * (sign * step * scale)}) for sign in (1, -1)
        ]
        slope = (ends[0].log_partition - ends[1].log_partition) / (2 * step * scale)
        assert_allclose(0.5 * expected.trace_with(change, here.counts), slope, rtol=1e-5)


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_a_finer_lattice_changes_nothing(n_classes: int) -> None:
    coarse, fine = layer(n_classes), layer(n_classes, lattice=Lattice(reach=10.0, spacing=0.45, cut=6.0))
    assert_allclose(coarse.log_partition, fine.log_partition, atol=1e-5)
    assert_allclose(coarse.kernel.blocks, fine.kernel.blocks, rtol=1e-4)
    assert_allclose(coarse.message.diagonal, fine.message.diagonal, rtol=1e-3)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_drawn_neurons_have_the_kernel(n_classes: int, first: bool) -> None:
    """8000 neurons: 5 standard errors, a false alarm in 10^5; sees 8 % (the twin: a kernel 15 % off)."""
    here = layer(n_classes, first=first)
    member = np.repeat(np.arange(n_classes), here.counts.astype(int))
    z = draw_preactivations(here, 8000, member, np.random.default_rng(1))
    means = np.maximum(z, 0.0) @ (np.eye(n_classes)[member] / here.counts)
    products = means[:, :, None] * means[:, None, :]
    expected = here.kernel.on_means(here.counts)
    error = products.std(0) / np.sqrt(len(z))
    assert (np.abs(products.mean(0) - expected) < 5 * error).all()
    assert (np.abs(products.mean(0) - 1.15 * expected) > 5 * error).any()


def test_draws_leave_the_nodes() -> None:
    here = layer(2)
    z = draw_preactivations(here, 500, np.repeat([0, 1], [8, 12]), np.random.default_rng(0))
    assert len(np.unique(z[:, 0])) == 500


def test_fields_that_are_not_positive_are_refused() -> None:
    here = layer(2)
    wrong = evolve(here, conjugate=ClassMatrix(np.array([[0.01, 0.02], [0.02, 0.01]]), np.zeros(2)))
    with pytest.raises(OutsideDomainError):
        _ = wrong.log_partition
