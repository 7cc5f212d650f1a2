"""Alignment: shuffled neurons are put back; kernels align with the targets where features are learned."""

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.coding import align, kernel_alignment
from fltheory.coding.alignment import centred_alignment
from fltheory.coding.drift import matching

POSTERIOR = flt.DeepNetworkPosterior(
    flt.OrthogonalClassification(n_samples=20, class_ratios=(0.5, 0.5)),
    flt.Sigmoid(),
    width=40,
    temperature=1e-3,
)


@pytest.fixture(scope="module")
def networks():
    options = {"n_draws": 6, "n_chains": 3, "n_warmup": 10, "seed": 0, "progress": False}
    return POSTERIOR.sample(flt.HMC(n_leapfrog=5), start="theory", **options)


# Neurons of chains -------------------------------------------------------------------------------


def test_a_shuffle_is_undone():
    rng = np.random.default_rng(0)
    neurons, shuffle = rng.standard_normal((30, 8)), rng.permutation(30)
    np.testing.assert_array_equal(
        neurons[shuffle][matching(neurons, neurons[shuffle])], neurons[matching(neurons, neurons)]
    )


def test_chains_are_matched(networks):
    found = align(networks, reference=1, draw=2)
    np.testing.assert_array_equal(np.sort(found.order, axis=1), np.tile(np.arange(40), (3, 1)))
    np.testing.assert_array_equal(found.order[1], np.arange(40))
    assert found.overlap[1] == pytest.approx(1.0) and found.unaligned[1] == pytest.approx(1.0)
    assert (found.overlap[[0, 2]] > 0.5).all() and (found.unaligned[[0, 2]] < 0.5).all()


def test_matched_neurons_have_the_same_code(networks):
    """As far as the two networks have the same number of neurons of each code."""
    phi = networks.activations(1)[:, -1]
    codes = [flt.find_codes(x, labels=networks.model.task.labels) for x in phi]
    pattern = [c.codes[c.members] for c in codes]
    same = (pattern[0] == pattern[1][align(networks).order[1]]).all(1).mean()
    shared = sum(
        min((pattern[0] == code).all(1).mean(), (pattern[1] == code).all(1).mean()) for code in codes[0].codes
    )
    assert same == pytest.approx(shared, abs=0.06)


# Kernels -----------------------------------------------------------------------------------------


def test_lazy_kernels_stay_those_of_the_prior():
    for depth in (1, 2):
        lazy = evolve(POSTERIOR, readout_scaling="lazy", n_hidden_layers=depth).solve()
        for layer in range(depth + 1):
            found = kernel_alignment(lazy, layer)
            assert found.change == pytest.approx(0.0, abs=1e-12)
            assert found.alignment == pytest.approx(found.prior_alignment)


@pytest.mark.parametrize("phi", [flt.Linear(), flt.Sigmoid(), flt.Tanh()])
def test_kernels_of_learned_features_align_with_the_targets(phi):
    found = kernel_alignment(evolve(POSTERIOR, nonlinearity=phi).solve())
    assert found.change > 0.2
    assert found.alignment > found.prior_alignment + 0.2
    assert found.alignment_error is None and found.change_error is None


def test_alignment_grows_with_depth():
    theory = evolve(POSTERIOR, nonlinearity=flt.Linear(), n_hidden_layers=3).solve()
    layers = [kernel_alignment(theory, layer) for layer in range(4)]
    assert layers[0].change == 0.0 and layers[0].alignment == layers[0].prior_alignment
    assert (np.diff([found.alignment for found in layers]) > 0).all()


def test_networks_align_as_their_theory_says(networks):
    """Within what 40 neurons allow: O(1/N) of the gap of kernels from theory, here .05 or so."""
    theory, found = kernel_alignment(POSTERIOR.solve()), kernel_alignment(networks)
    assert found.alignment == pytest.approx(theory.alignment, abs=0.1)
    assert 0.0 < found.alignment_error < 0.1 and 0.0 < found.change_error < 0.2


def test_errors_need_two_chains_and_networks_that_were_kept():
    options = {"n_draws": 3, "n_warmup": 5, "seed": 0, "progress": False}
    for more in ({"n_chains": 1}, {"n_chains": 2, "keep": "statistics"}):
        found = kernel_alignment(POSTERIOR.sample(flt.HMC(), **options, **more))
        assert found.alignment_error is None and found.change_error is None


def test_the_alignment_of_kernels_is_a_cosine_of_centred_matrices():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 9)), rng.standard_normal((6, 2))
    one, other = x @ x.T, y @ y.T
    value = centred_alignment(one, other)
    assert centred_alignment(other, one) == pytest.approx(value)
    assert centred_alignment(3 * one + 7, other) == pytest.approx(value)
    assert centred_alignment(one, one) == pytest.approx(1.0)
    centre = np.eye(6) - 1 / 6
    a, b = centre @ one @ centre, centre @ other @ centre
    assert value == pytest.approx(np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b)))
    assert centred_alignment(np.ones((6, 6)), other) == 0.0


# Bad arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"samples": np.ones((2, 3))}, TypeError, "samples"),
        ({"layer": 0}, ValueError, "layer"),
        ({"reference": 3}, ValueError, "reference"),
        ({"draw": -1}, ValueError, "draw"),
        ({"draw": 6}, ValueError, "draw"),
    ],
)
def test_bad_arguments_are_named(networks, options, error, name):
    with pytest.raises(error, match=f"^{name}:"):
        align(**{"samples": networks} | options)


@pytest.mark.parametrize(("value", "layer", "name"), [("K", None, "representation"), (None, 2, "layer")])
def test_bad_arguments_of_kernel_alignment_are_named(networks, value, layer, name):
    with pytest.raises((TypeError, ValueError), match=f"^{name}:"):
        kernel_alignment(networks if value is None else value, layer)
