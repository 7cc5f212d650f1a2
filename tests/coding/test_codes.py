"""Codes: planted ones are found and none invented, whatever the order of neurons; the order shows them."""

from itertools import product

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, strategies as st

import fltheory as flt
from fltheory.coding import code_fractions
from fltheory.representation import class_means

LABELS = np.array([0, 0, 0, 1, 1, 2])
PLANTED = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]])


def planted(counts, seed=0, noise=0.1, codes=PLANTED, labels=LABELS):
    """Noisy activations (n, P) of neurons with the planted codes, shuffled, and the code of each."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    clean = codes[members][:, labels]
    return np.clip(0.1 + 0.8 * clean + noise * rng.standard_normal(clean.shape), 0, 1), members


def shares(codes):
    return dict(zip(map(tuple, codes.codes.tolist()), codes.fractions.tolist(), strict=True))


POSTERIOR = flt.DeepNetworkPosterior(
    flt.OrthogonalClassification(n_samples=16, class_ratios=(0.5, 0.5)),
    flt.Sigmoid(),
    width=30,
    temperature=1e-3,
)


@pytest.fixture(scope="module")
def theory():
    return POSTERIOR.solve()


@pytest.fixture(scope="module")
def networks():
    options = {"n_draws": 8, "n_chains": 3, "n_warmup": 10, "seed": 0, "progress": False}
    return POSTERIOR.sample(flt.HMC(n_leapfrog=5), start="theory", **options)


# Arrays ------------------------------------------------------------------------------------------


def test_planted_codes_are_recovered():
    activations, members = planted((20, 10, 5))
    codes = flt.find_codes(activations, labels=LABELS)
    np.testing.assert_array_equal(codes.codes, PLANTED)
    np.testing.assert_array_equal(codes.members, members)
    np.testing.assert_allclose(codes.fractions, np.array([20, 10, 5]) / 35)
    np.testing.assert_allclose(codes.class_means[:, 2], activations[:, 5])
    np.testing.assert_allclose(codes.centres, 0.1 + 0.8 * PLANTED, atol=0.1)
    assert codes.is_discrete


@pytest.mark.parametrize("seed", range(4))
def test_planted_codes_are_recovered_at_more_noise(seed):
    activations, members = planted((60, 50, 40), seed, noise=0.15)
    codes = flt.find_codes(activations, labels=LABELS)
    np.testing.assert_array_equal(codes.codes, PLANTED)
    np.testing.assert_array_equal(codes.members, members)


@pytest.mark.parametrize(("n_classes", "count"), [(3, 20), (4, 10), (4, 30)])
def test_all_codes_of_some_classes_are_recovered(n_classes, count):
    every, labels = np.array(list(product((0, 1), repeat=n_classes))), np.repeat(np.arange(n_classes), 10)
    activations, members = planted((count,) * len(every), noise=0.15, codes=every, labels=labels)
    codes = flt.find_codes(activations, labels=labels)
    np.testing.assert_array_equal(codes.codes[codes.members], every[members])
    assert len(codes.codes) == 2**n_classes


@pytest.mark.parametrize("n_classes", [10, 12, 20])
@pytest.mark.parametrize("n_silent", [0, 1])
def test_codes_of_many_classes_are_recovered(n_classes, n_silent):
    """One code a class, active on this class alone or silent on it alone: all directions carry codes."""
    every, labels = abs(n_silent - np.eye(n_classes, dtype=int)), np.repeat(np.arange(n_classes), 4)
    activations, members = planted((25,) * n_classes, codes=every, labels=labels)
    codes = flt.find_codes(activations, labels=labels)
    np.testing.assert_array_equal(codes.codes[codes.members], every[members])


def test_codes_are_found_without_labels():
    """Each input is then a class: neurons of a code are active on the inputs of its classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], (15, 10, 5))
    members = rng.permutation(np.repeat([0, 1, 2], (40, 30, 20)))
    activations = 0.1 + 0.8 * PLANTED[members][:, labels] + 0.15 * rng.standard_normal((90, 30))
    codes = flt.find_codes(activations)
    np.testing.assert_array_equal(codes.codes, PLANTED[:, labels])
    np.testing.assert_array_equal(codes.members, members)


def test_readouts_tell_codes_apart_that_activations_do_not():
    """Activations of two groups overlap, their readouts do not."""
    rng = np.random.default_rng(0)
    members = rng.permutation(np.repeat([0, 1], (60, 40)))
    activations = np.where(members[:, None] == (LABELS > 0), 0.6, 0.4) + 0.3 * rng.standard_normal((100, 6))
    readouts = np.where(members[:, None] == [0, 1], 1.0, -1.0) + 0.1 * rng.standard_normal((100, 2))
    assert not flt.find_codes(activations, labels=LABELS).is_discrete
    codes = flt.find_codes(activations, labels=LABELS, readouts=readouts)
    np.testing.assert_array_equal(codes.members, members)
    np.testing.assert_array_equal(codes.codes, [[1, 0, 0], [0, 1, 1]])


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("labels", [None, np.repeat([0, 1, 2], (15, 10, 5))])
def test_no_code_is_invented_in_noise(n, labels):
    """See test_clusters.py on the rate of false alarms."""
    rng = np.random.default_rng(n)
    for noise in (rng.random((n, 30)), rng.standard_normal((n, 3)) @ rng.standard_normal((3, 30))):
        codes = flt.find_codes(noise, labels=labels)
        assert not codes.is_discrete and not codes.codes.any()


def test_no_code_is_invented_in_noise_on_many_classes():
    """Also not of neurons fewer than classes and outputs."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(20), 2)
    for n in (30, 60, 300):
        codes = flt.find_codes(rng.random((n, 40)), labels=labels, readouts=rng.standard_normal((n, 20)))
        assert not codes.is_discrete and not codes.codes.any()


def test_all_neurons_may_have_the_same_code():
    activations, _ = planted((0, 40, 0))
    codes = flt.find_codes(activations, labels=LABELS)
    assert codes.codes.tolist() == [[1, 1, 0]] and codes.fractions.tolist() == [1.0]


def test_the_error_of_a_fraction_is_that_of_independent_neurons():
    codes = flt.find_codes(planted((20, 10, 5))[0], labels=LABELS)
    share = np.array([20, 10, 5]) / 35
    np.testing.assert_allclose(codes.standard_errors, np.sqrt(share * (1 - share) / 35))


def test_the_order_sorts_by_code_and_then_by_activity():
    activations, _ = planted((20, 10, 5))
    codes = flt.find_codes(activations, labels=LABELS)
    np.testing.assert_array_equal(np.sort(codes.order), np.arange(35))
    assert (np.diff(codes.members[codes.order]) >= 0).all()
    activity = codes.class_means.sum(1)[codes.order]
    assert (np.diff(activity)[np.diff(codes.members[codes.order]) == 0] <= 0).all()


@given(
    counts=st.lists(st.integers(8, 40), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    noise=st.sampled_from((0.05, 0.2, 0.5)),
)
def test_codes_follow_their_neurons(counts, seed, noise):
    activations, _ = planted(counts, seed, noise)
    shuffle = np.random.default_rng(seed).permutation(len(activations))
    one, other = (flt.find_codes(a, labels=LABELS) for a in (activations, activations[shuffle]))
    np.testing.assert_array_equal(other.fractions, one.fractions)
    np.testing.assert_array_equal(other.codes[other.members], one.codes[one.members][shuffle])


@given(
    counts=st.lists(st.integers(8, 40), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    names=st.permutations((0, 1, 2)),
)
def test_codes_follow_the_names_of_classes(counts, seed, names):
    activations, _ = planted(counts, seed)
    one = flt.find_codes(activations, labels=LABELS)
    other = flt.find_codes(activations, labels=np.array(names)[LABELS])
    np.testing.assert_array_equal(other.codes[:, names][other.members], one.codes[one.members])
    assert sorted(shares(one).values()) == sorted(shares(other).values())


@pytest.mark.parametrize(
    ("named", "counts", "noise"),
    [("classes", (1500, 1000, 700, 100), 0.6), ("inputs", (1500, 1000, 700), 0.5)],
)
def test_codes_of_many_neurons_follow_names(named, counts, noise):
    """More than are looked at, so noisy that codes overlap: another choice of them moves some neurons."""
    labels, codes = np.repeat([0, 1, 2], (20, 10, 10)), np.vstack([PLANTED, [[1, 0, 0]]])
    activations, _ = planted(counts, noise=noise, codes=codes, labels=labels)
    one = flt.find_codes(activations, labels=labels if named == "classes" else None)
    if named == "classes":
        names = np.array([2, 0, 1])
        other, back = flt.find_codes(activations, labels=names[labels]), names
    else:
        shuffle = np.random.default_rng(0).permutation(40)
        other, back = flt.find_codes(activations[:, shuffle]), np.argsort(shuffle)
    assert one.is_discrete
    np.testing.assert_array_equal(other.codes[:, back][other.members], one.codes[one.members])


# Theory and networks -----------------------------------------------------------------------------


def test_a_theory_has_the_codes_of_its_branches(theory):
    found = shares(flt.find_codes(theory, n=4000))
    for branch in theory.branches:
        error = np.sqrt(branch.probability / 4000)
        assert abs(found.get(branch.code, 0.0) - branch.probability) < 5 * error + 0.03  # width of branches


def test_a_theory_may_have_all_codes():
    """Of four classes, 16. Of 16 errors none is beyond 5 by chance; each is .004, so .02 off is seen."""
    task = flt.OrthogonalClassification(n_samples=16, class_ratios=(0.25, 0.25, 0.25, 0.25))
    theory = evolve(POSTERIOR, task=task, nonlinearity=flt.Erf(), width=100, temperature=5e-4).solve()
    found = code_fractions(theory)
    assert len(found.codes) == len(theory.branches) == 16
    for branch in theory.branches:
        error = np.sqrt(branch.probability / 4000)
        assert abs(found.of(branch.code) - branch.probability) < 5 * error


def test_networks_have_the_codes_of_the_theory(theory, networks):
    """Started from theory neurons, whose codes do not move much in so short a run."""
    expected, found = code_fractions(theory), code_fractions(networks)
    error = np.sqrt(0.25 / (3 * 30))
    for code in ((1, 0), (0, 1)):
        assert abs(found.of(code) - expected.of(code)) < 5 * error
    assert found.by_draw.shape == (3, 8, len(found.codes))
    np.testing.assert_allclose(found.by_draw.sum(-1), 1.0)
    np.testing.assert_allclose(found.fractions, found.by_draw.mean((0, 1)))
    spread = found.by_draw.mean(1).std(0, ddof=1)
    np.testing.assert_allclose(found.standard_errors, spread / np.sqrt(3))


def test_samples_without_networks_know_the_codes_counted_while_sampling(networks):
    options = {"n_draws": 8, "n_chains": 3, "n_warmup": 10, "seed": 0, "progress": False}
    run = {"sampler": flt.HMC(n_leapfrog=5), "keep": "statistics", **options}
    streamed = POSTERIOR.sample(start="theory", **run)
    found, whole = code_fractions(streamed), code_fractions(networks)
    means = networks.functional(lambda phi: class_means(phi, POSTERIOR.task.labels))
    for code, by_draw in zip(found.codes, np.moveaxis(found.by_draw, -1, 0), strict=True):
        np.testing.assert_array_equal(by_draw, ((means > 0.5) == code).all(-1).mean(-1))
        assert abs(found.of(code) - whole.of(code)) < 0.1, "a neuron on its way counts elsewhere"
    assert found.fractions.sum() == pytest.approx(1.0) and (np.diff(found.fractions) <= 0).all()
    for question in ({"labels": POSTERIOR.task.labels}, {"layer": 1}):
        deep = question.get("layer") and evolve(POSTERIOR, n_hidden_layers=2).sample(**run)
        with pytest.raises(ValueError, match="^keep"):
            code_fractions(deep or streamed, **question)
    for change in ({"readout_scaling": "lazy"}, {"nonlinearity": flt.ReLU()}, {"temperature": np.inf}):
        with pytest.raises(ValueError, match="^keep"):  # no codes that a threshold would tell
            code_fractions(evolve(POSTERIOR, **change).sample(**run))


def test_one_chain_has_no_error(networks):
    one = POSTERIOR.sample(flt.HMC(), n_draws=2, n_chains=1, n_warmup=5, seed=0, progress=False)
    assert code_fractions(one).standard_errors is None
    assert code_fractions(networks).of((1, 1)) >= 0.0


def test_linear_and_untrained_networks_have_no_codes():
    for other in ({"nonlinearity": flt.Linear()}, {"temperature": np.inf}, {"readout_scaling": "lazy"}):
        codes = flt.find_codes(evolve(POSTERIOR, **other).solve(), n=1000)
        assert not codes.is_discrete and not codes.codes.any()


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "theory"])
def test_three_classes(start):
    """Codes 1-1-0, 1-0-1 and 0-1-1 a third each, 1-0-0 rare; theory and networks agree.

    Binomial errors of 4000 neurons are .007, so the 5 errors allowed let pass what is .035 off.
    """
    posterior = evolve(
        POSTERIOR,
        task=flt.OrthogonalClassification(n_samples=60, class_ratios=(0.5, 0.25, 0.25)),
        width=300,
        temperature=1e-4,
    )
    theory = posterior.solve()
    expected = {branch.code: branch.probability for branch in theory.branches}
    found = code_fractions(theory)
    assert {tuple(code) for code in found.codes.tolist()} == set(expected)
    for code, error in zip(found.codes, found.standard_errors, strict=True):
        assert abs(found.of(code) - expected[tuple(code)]) < 5 * error
    networks = posterior.sample(n_draws=20, n_chains=4, n_warmup=60, start=start, seed=0, progress=False)
    sampled = code_fractions(networks)
    assert {tuple(code) for code in sampled.codes.tolist()} == set(expected)
    for code, probability in expected.items():
        assert sampled.of(code) == pytest.approx(probability, abs=0.02)


def test_the_width_is_the_default_number_of_neurons(theory):
    assert len(flt.find_codes(theory).members) == 30
    assert (flt.find_codes(theory, seed=1).class_means != flt.find_codes(theory).class_means).any()


def test_linear_neurons_are_ordered_along_their_leading_direction():
    theory = evolve(POSTERIOR, nonlinearity=flt.Linear()).solve()
    activations = theory.neurons(30, 1, 0).activations
    leading = np.linalg.svd(activations - activations.mean(0))[2][0]
    steps = np.diff((activations @ leading)[flt.find_codes(theory).order])
    assert (steps <= 0).all() or (steps >= 0).all()


def test_arrays_are_read_only(theory, networks):
    codes, fractions = flt.find_codes(theory), code_fractions(networks)
    for array in (codes.codes, codes.fractions, codes.standard_errors, codes.members, codes.class_means):
        assert not array.flags.writeable
    for array in (codes.centres, codes.order, fractions.codes, fractions.fractions, fractions.by_draw):
        assert not array.flags.writeable


def test_labels_may_be_given_for_a_task_without():
    task = flt.ArrayTask(np.eye(4), [0.0, 0.0, 1.0, 1.0])
    theory = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=20, temperature=5e-3).solve()
    assert flt.find_codes(theory, labels=[0, 0, 1, 1]).codes.shape[1] == 2
    assert flt.find_codes(theory).codes.shape[1] == 4


# Bad arguments -----------------------------------------------------------------------------------

ACTIVATIONS = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "name"),
    [
        ((True,), {}, TypeError, "representation"),
        (("networks",), {}, TypeError, "representation"),
        ((ACTIVATIONS[0],), {"labels": [0, 1, 1]}, ValueError, "representation"),
        (([[np.nan, 1.0]],), {"labels": [0, 1]}, ValueError, "representation"),
        ((ACTIVATIONS,), {"labels": [0, 1]}, ValueError, "labels"),
        ((ACTIVATIONS,), {"labels": [0.0, 1.0, 1.0]}, TypeError, "labels"),
        ((ACTIVATIONS, 1), {"labels": [0, 1, 1]}, ValueError, "layer"),
        ((ACTIVATIONS, None, 2), {"labels": [0, 1, 1]}, ValueError, "n"),
        ((ACTIVATIONS,), {"readouts": [1.0, 2.0]}, ValueError, "readouts"),
        ((ACTIVATIONS,), {"readouts": np.ones((3, 2))}, ValueError, "readouts"),
        (("theory",), {"readouts": np.ones((30, 2))}, ValueError, "readouts"),
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


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"representation": ACTIVATIONS}, TypeError, "representation"),
        ({"layer": 2}, ValueError, "layer"),
        ({"n": 0}, ValueError, "n"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"labels": [1] * 16}, ValueError, "labels"),
    ],
)
def test_bad_arguments_of_fractions_are_named(theory, networks, options, error, name):
    for representation in (theory, networks):
        with pytest.raises(error, match=f"^{name}:"):
            code_fractions(**{"representation": representation} | options)
    with pytest.raises(ValueError, match="^code:"):
        code_fractions(theory).of((1, 0, 0))
