"""Theory against networks: the right theory passes, a wrong one does not, frozen chains are not tested."""

import sys

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory import study
from fltheory.meanfield.solution import Agreement
from fltheory.study import Comparison, Row, compare

TASK = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.5))
SIGMOID = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=60, temperature=0.1 / 60)
LINEAR = evolve(SIGMOID, nonlinearity=flt.Linear()).at_width(600)


@pytest.fixture(scope="module")
def linear():
    return LINEAR.sample(n_draws=25, n_warmup=60)


@pytest.fixture(scope="module")
def sigmoid():
    return SIGMOID.sample(n_draws=20, n_chains=2, n_warmup=40)


def rows(comparison):
    return {row.quantity: row for row in comparison.rows}


# Agreement ---------------------------------------------------------------------------------------


def test_the_right_theory_agrees(linear):
    """At N = 600, where 1/N is below the error: a readout variance wrong by 2 % would show (7 s.e.)."""
    worst = compare(LINEAR.solve(), linear).worst
    assert worst is not None and worst.score < 5


@pytest.mark.parametrize("readout_variance", [0.95, 1.05])
def test_a_wrong_theory_is_rejected(linear, readout_variance):
    wrong = evolve(LINEAR, prior=flt.GaussianPrior(readout_variance=readout_variance)).solve()
    worst = compare(wrong, linear).worst
    assert worst is not None and not worst.frozen and worst.score > 5


def test_a_theory_of_another_width_is_the_same(linear):
    one, other = (compare(p.solve(), linear) for p in (LINEAR, LINEAR.at_width(1000)))
    np.testing.assert_allclose([r.gap or 0 for r in one.rows], [r.gap or 0 for r in other.rows], atol=1e-9)


def test_networks_of_the_prior_agree_with_it():
    prior = evolve(LINEAR, width=100, temperature=np.inf)
    found = rows(compare(prior.solve(), prior.sample(n_draws=20, n_warmup=20)))
    assert found["K_1, diagonal"].score < 5
    assert found["dual field, class 0"].frozen and found["dual field, class 0"].gap == 0
    assert "dual field, correlation" not in found


# What the rows are -------------------------------------------------------------------------------


def test_kernel_rows_are_averages_over_pairs_of_different_inputs(sigmoid):
    theory = SIGMOID.solve()
    found = rows(compare(theory, sigmoid))
    for column, kernel in (("theory", theory.kernel(1)), ("network", sigmoid.kernel(1))):
        same = kernel[:6, :6][~np.eye(6, dtype=bool)].mean()
        assert getattr(found["K_1, classes 0, 0"], column) == pytest.approx(same)
        assert getattr(found["K_1, classes 0, 1"], column) == pytest.approx(kernel[:6, 6:].mean())
        assert getattr(found["K_1, diagonal"], column) == pytest.approx(np.diagonal(kernel).mean())
    distance = np.linalg.norm(sigmoid.kernel(1) - theory.kernel(1)) / np.linalg.norm(theory.kernel(1))
    assert found["K_1, relative distance"].gap == pytest.approx(distance)


def test_code_rows_are_shares_of_neurons(sigmoid):
    theory = SIGMOID.solve()
    found = rows(compare(theory, sigmoid))
    active = np.stack([a.mean(-1) for a in np.split(sigmoid.activations(1), 2, axis=-1)], -1) > 0.5
    for branch in theory.branches:
        row = found[f"share of code {branch.code[0]}-{branch.code[1]}"]
        assert row.theory == pytest.approx(branch.probability)
        assert row.network == pytest.approx((active == branch.code).all(-1).mean())


def test_output_and_field_rows_are_those_of_the_own_class(sigmoid):
    theory = SIGMOID.solve()
    found = rows(compare(theory, sigmoid))
    mean, expected = sigmoid.predict().mean, theory.predict().mean
    assert found["training output, class 1"].network == pytest.approx(mean[6:, 1].mean())
    assert found["training output, rms gap"].gap == pytest.approx(np.sqrt(((mean - expected) ** 2).mean()))
    assert found["dual field, class 0"].network == pytest.approx(sigmoid.dual_field[:6, 0].mean())
    correlation = np.corrcoef(theory.dual_field.ravel(), sigmoid.dual_field.ravel())[0, 1]
    assert found["dual field, correlation"].network == pytest.approx(correlation)


def test_test_inputs_get_rows_of_their_own():
    x = np.random.default_rng(0).standard_normal((10, 6))
    labels = np.repeat([3, 7], 5)
    targets = np.eye(2)[(labels == 7).astype(int)]
    task = flt.ArrayTask(x[::2], targets[::2], labels[::2], x[1::2], targets[1::2])
    posterior = flt.DeepNetworkPosterior(task, flt.Linear(), width=20, temperature=5e-3)
    networks = posterior.sample(n_draws=6, n_chains=2, n_warmup=20)
    found = rows(compare(posterior.solve(), networks))
    mean = networks.predict(task.test_inputs).mean
    assert found["test output, class 7"].network == pytest.approx(mean[labels[1::2] == 7, 1].mean())
    assert "test output, rms gap" in found
    assert "K_1, classes 3, 7" in found


def test_a_task_without_labels_has_rows_without_classes():
    posterior = evolve(LINEAR, task=flt.ArrayTask(np.eye(5), np.linspace(-1, 1, 5)), width=20)
    found = rows(compare(posterior.solve(), posterior.sample(n_draws=6, n_chains=2, n_warmup=20)))
    assert list(found) == [
        "K_1, different inputs",
        "K_1, diagonal",
        "K_1, relative distance",
        "training output, rms gap",
        "dual field, correlation",
    ]


def test_every_layer_has_its_kernel():
    posterior = evolve(LINEAR, n_hidden_layers=2, width=20)
    found = rows(compare(posterior.solve(), posterior.sample(n_draws=6, n_chains=2, n_warmup=20)))
    assert {"K_1, diagonal", "K_2, diagonal"} <= set(found)


# Frozen chains -----------------------------------------------------------------------------------


def estimate(draws):
    return study._row("", 0.0, np.asarray(draws, dtype=float))


def test_chains_that_do_not_move_or_disagree_are_frozen():
    noise = np.random.default_rng(0).standard_normal((4, 50))
    assert not estimate(noise).frozen
    assert estimate(np.ones((4, 50))).frozen
    assert estimate(1 + 1e-13 * noise).frozen
    assert estimate(np.where(np.arange(4)[:, None] == 2, 1.0, noise)).frozen
    assert estimate(noise + 3 * np.arange(4)[:, None]).frozen
    assert estimate(noise[:, :3]).frozen


def test_the_error_of_an_rms_gap_is_what_chance_gives():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((4, 100, 50))
    row = study._distance_row("", np.zeros(50), draws)
    assert row.standard_error == pytest.approx(1 / 20, rel=0.2)
    assert row.gap / row.standard_error == pytest.approx(1.0, abs=0.4)
    shifted = study._distance_row("", np.full(50, 0.5), draws)
    assert shifted.gap / shifted.standard_error > 5


def test_codes_that_no_neuron_leaves_are_frozen():
    stays = np.zeros((2, 30, 10), dtype=bool)
    stays[:, :, :5] = True
    assert not study._is_renewed(stays)
    assert study._is_renewed(np.random.default_rng(0).random((2, 30, 10)) < 0.5)
    few_leave = stays.copy()
    few_leave[:, 15:, :2] = False
    assert not study._is_renewed(few_leave)


def test_frozen_codes_are_marked_and_not_tested():
    cold = SIGMOID.at_width(30)
    cold = evolve(cold, temperature=cold.temperature / 5, task=evolve(TASK, n_samples=24))
    networks = cold.sample(n_draws=8, n_chains=2, n_warmup=60)
    comparison = compare(cold.solve(), networks)
    shares = [row for name, row in rows(comparison).items() if name.startswith("share of code")]
    assert shares and all(row.frozen and row.score is None for row in shares)
    assert "frozen" in str(comparison)
    assert "given the shares" in str(comparison)


# The table ---------------------------------------------------------------------------------------

TABLE = Comparison(
    "heading",
    (
        Row("kernel", 1.0, 1.5, 0.5, 0.25),
        Row("share", 1.0, 9.0, 8.0, 0.01, frozen=True),
        Row("distance", gap=0.3),
        Row("output", 2.0, 1.0, -1.0, 0.2),
    ),
)


def test_the_worst_row_is_the_largest_gap_that_is_not_frozen():
    assert TABLE.worst.quantity == "output"
    assert TABLE.worst.score == pytest.approx(5.0)
    assert Comparison("", TABLE.rows[1:3]).worst is None


def test_the_table_is_aligned_and_marks_what_is_frozen():
    heading, columns, *lines, last = str(TABLE).splitlines()
    assert heading == "heading"
    assert columns.split() == ["theory", "network", "gap", "s.e."]
    assert [line.removesuffix("  frozen").split()[-1] for line in lines] == ["0.25", "0.01", "-", "0.2"]
    assert [line.endswith("frozen") for line in lines] == [False, True, False, False]
    assert len({len(line.removesuffix("  frozen")) for line in (columns, *lines)}) == 1
    assert last == "largest gap: 5.0 standard errors (output)"


def test_the_table_states_the_error_of_the_theory():
    """Which no standard error contains."""
    agreement = Agreement("exact neurons", 0.006, 0.002)
    *_, stated, _ = str(evolve(TABLE, agreement=agreement)).splitlines()
    assert stated == "error of the theory itself, by exact neurons: t 0.6%, kernel 0.2% apart"


def test_the_table_becomes_a_data_frame():
    pytest.importorskip("pandas")
    frame = TABLE.to_dataframe()
    assert list(frame.columns) == ["quantity", "theory", "network", "gap", "standard_error", "frozen"]
    assert frame["gap"].tolist() == [0.5, 8.0, 0.3, -1.0]


def test_without_pandas_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pandas"):
        TABLE.to_dataframe()


# Arguments ---------------------------------------------------------------------------------------


def test_networks_that_were_not_kept_are_compared_by_averages_of_chains(sigmoid):
    """The same run once more: the same values, with errors from how far the chains differ."""
    theory, averaged = SIGMOID.solve(), SIGMOID.sample(n_draws=20, n_chains=2, n_warmup=40, keep="statistics")
    found, known = rows(compare(theory, averaged)), rows(compare(theory, sigmoid))
    assert list(found) == list(known)
    for name, row in known.items():
        for ours, theirs in ((found[name].network, row.network), (found[name].gap, row.gap)):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    spread = sigmoid.chain_averages("kernel", 1)
    np.testing.assert_allclose(spread, averaged.chain_averages("kernel"), rtol=1e-6)
    diagonal = np.diagonal(spread, axis1=1, axis2=2).mean(1)
    error = diagonal.std(ddof=1) / np.sqrt(2)
    assert found["K_1, diagonal"].standard_error == pytest.approx(error, rel=1e-6)
    with pytest.raises(ValueError, match="quantity"):
        sigmoid.chain_averages("mean")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"task": evolve(TASK, class_ratios=(0.25, 0.75))}, "task"),
        ({"nonlinearity": flt.Erf()}, "nonlinearity"),
        ({"temperature": 0.2 / 60}, "temperature"),
    ],
)
def test_answers_to_different_questions_are_refused(sigmoid, change, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        compare(evolve(SIGMOID, **change).solve(), sigmoid)


def test_a_different_depth_is_refused(linear):
    with pytest.raises(ValueError, match="^n_hidden_layers"):
        compare(evolve(LINEAR, n_hidden_layers=2).solve(), linear)


def test_networks_of_other_targets_are_refused():
    networks = SIGMOID.sample(n_draws=1, n_chains=1, n_warmup=1, targets=1 - TASK.targets)
    with pytest.raises(ValueError, match="^targets"):
        compare(SIGMOID.solve(), networks)


def test_arguments_of_the_wrong_kind_are_named(sigmoid):
    with pytest.raises(TypeError, match="^theory"):
        compare(sigmoid, sigmoid)
    with pytest.raises(TypeError, match="^networks"):
        compare(SIGMOID.solve(), SIGMOID.solve())
    with pytest.raises(TypeError, match="^theory"):
        compare(True, sigmoid)


def test_where_codes_are_frozen_the_table_names_the_theory_that_tells_freezing_from_error():
    frozen_share = Row("share of code 1-0", theory=0.3, network=0.5, gap=0.2, frozen=True)
    hint = "solve(code_fractions=fltheory.code_fractions(networks))"
    assert hint in str(Comparison("networks", (frozen_share,)))
    assert hint not in str(Comparison("networks", (frozen_share,), has_imposed_codes=True))
    assert hint not in str(Comparison("networks", (evolve(frozen_share, frozen=False),)))


def test_a_theory_at_imposed_fractions_says_so(sigmoid):
    free = SIGMOID.solve()
    own = SIGMOID.solve(code_fractions={branch.code: branch.probability for branch in free.branches})
    assert "imposed code fractions" in repr(own)
    assert "imposed code fractions" not in repr(free)
    assert "theory at imposed code fractions" in compare(own, sigmoid).heading
