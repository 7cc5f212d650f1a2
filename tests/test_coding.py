"""Codes: planted ones are found, whatever the order of neurons; the order shows them."""

import numpy as np
import pytest

import fltheory as flt

LABELS = np.array([0, 0, 0, 1, 1, 2])
PLANTED = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]])


def planted(counts, seed=0):
    """Noisy activations (n, P) of neurons with the planted codes, shuffled, and the code of each."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    clean = PLANTED[members][:, LABELS]
    return np.clip(0.1 + 0.8 * clean + 0.1 * rng.standard_normal(clean.shape), 0, 1), members


@pytest.fixture(scope="module")
def theory():
    task = flt.OrthogonalClassification(n_samples=16, class_ratios=(0.5, 0.5))
    return flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=30, temperature=1e-3).solve()


def test_planted_codes_are_recovered():
    activations, members = planted((20, 10, 5))
    codes = flt.find_codes(activations, labels=LABELS)
    np.testing.assert_array_equal(codes.codes, PLANTED)
    np.testing.assert_array_equal(codes.members, members)
    np.testing.assert_allclose(codes.fractions, np.array([20, 10, 5]) / 35)
    np.testing.assert_allclose(codes.class_means[:, 2], activations[:, 5])


def test_the_order_sorts_by_code_and_then_by_activity():
    activations, _ = planted((20, 10, 5))
    codes = flt.find_codes(activations, labels=LABELS)
    np.testing.assert_array_equal(np.sort(codes.order), np.arange(35))
    assert (np.diff(codes.members[codes.order]) >= 0).all()
    activity = codes.class_means.sum(1)[codes.order]
    assert (np.diff(activity)[np.diff(codes.members[codes.order]) == 0] <= 0).all()


def test_codes_follow_their_neurons():
    activations, _ = planted((20, 10, 5))
    shuffle = np.random.default_rng(1).permutation(35)
    one, other = (flt.find_codes(a, labels=LABELS) for a in (activations, activations[shuffle]))
    np.testing.assert_array_equal(other.codes[other.members], one.codes[one.members][shuffle])


def test_a_theory_has_the_codes_of_its_branches(theory):
    codes = flt.find_codes(theory, n=4000)
    shares = dict(zip(map(tuple, codes.codes.tolist()), codes.fractions, strict=True))
    for branch in theory.branches:
        error = np.sqrt(branch.probability / 4000)
        assert abs(shares.get(branch.code, 0.0) - branch.probability) < 5 * error + 0.03  # width of branches


def test_the_width_is_the_default_number_of_neurons(theory):
    assert len(flt.find_codes(theory).members) == 30
    assert (flt.find_codes(theory, seed=1).members != flt.find_codes(theory).members).any()


def test_linear_neurons_are_ordered_along_their_leading_direction():
    task = flt.OrthogonalClassification(n_samples=8, class_ratios=(0.5, 0.5))
    theory = flt.DeepNetworkPosterior(task, flt.Linear(), width=30, temperature=1e-3).solve()
    activations = theory.neurons(30, 1, 0).activations
    leading = np.linalg.svd(activations - activations.mean(0))[2][0]
    steps = np.diff((activations @ leading)[flt.find_codes(theory).order])
    assert (steps <= 0).all() or (steps >= 0).all()


def test_arrays_are_read_only(theory):
    codes = flt.find_codes(theory)
    for array in (codes.codes, codes.fractions, codes.members, codes.class_means, codes.order):
        assert not array.flags.writeable


def test_labels_may_be_given_for_a_task_without():
    task = flt.ArrayTask(np.eye(4), [0.0, 0.0, 1.0, 1.0])
    theory = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=20, temperature=5e-3).solve()
    assert flt.find_codes(theory, labels=[0, 0, 1, 1]).codes.shape[1] == 2
    with pytest.raises(ValueError, match="labels"):
        flt.find_codes(theory)


ACTIVATIONS = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "name"),
    [
        ((True,), {}, TypeError, "representation"),
        (("networks",), {}, TypeError, "representation"),
        ((ACTIVATIONS[0],), {"labels": [0, 1, 1]}, ValueError, "representation"),
        (([[np.nan, 1.0]],), {"labels": [0, 1]}, ValueError, "representation"),
        ((ACTIVATIONS,), {}, ValueError, "labels"),
        ((ACTIVATIONS,), {"labels": [0, 1]}, ValueError, "labels"),
        ((ACTIVATIONS,), {"labels": [0.0, 1.0, 1.0]}, TypeError, "labels"),
        ((ACTIVATIONS, 1), {"labels": [0, 1, 1]}, ValueError, "layer"),
        ((ACTIVATIONS, None, 2), {"labels": [0, 1, 1]}, ValueError, "n"),
        (("theory", 0), {}, ValueError, "layer"),
        (("theory", True), {}, TypeError, "layer"),
        (("theory", None, 0), {}, ValueError, "n"),
        (("theory", None, 2.0), {}, TypeError, "n"),
        (("theory", None, None, -1), {}, ValueError, "seed"),
        (("theory", None, None, "0"), {}, TypeError, "seed"),
        (("theory",), {"labels": [0, 1]}, ValueError, "labels"),
    ],
)
def test_bad_arguments_are_named(theory, arguments, options, error, name):
    first = theory if isinstance(arguments[0], str) and arguments[0] == "theory" else arguments[0]
    with pytest.raises(error, match=f"^{name}:"):
        flt.find_codes(first, *arguments[1:], **options)
