"""What the theory tells the sampler: which one to choose, which moves, where to start."""

import math

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.guidance import guide
from fltheory.network.moves.codes import CodeMoves
from fltheory.network.moves.rotations import RotationMoves
from fltheory.network.moves.stiffness import stiffness, temperature_of
from fltheory.network.reduction import Reduction
from fltheory.network.target import IntegratedTarget
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.blocks import BlockIndependence
from fltheory.sampler.hmc import HMC
from fltheory.sampler.tempering import Tempering

TASK = flt.OrthogonalClassification(n_samples=8, class_ratios=(0.5, 0.5))
SIGMOID = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=40, temperature=1e-3)
MOVES = Alternate(BlockIndependence(n_candidates=1, n_updates=5), HMC())
STIFF_MOVES = Alternate(BlockIndependence(n_candidates=4, n_updates=2), HMC())


def advised(posterior, sampler, solve):
    return guide(posterior.model, sampler, solve, Reduction.of(posterior.model))


def guidance(posterior, sampler=None):
    return advised(posterior, sampler, lambda t: evolve(posterior, temperature=t).solve())


@pytest.mark.parametrize(
    ("changes", "sampler", "moves"),
    [
        ({}, MOVES, CodeMoves),
        ({"nonlinearity": flt.Tanh()}, MOVES, CodeMoves),
        ({"nonlinearity": flt.ReLU()}, Alternate(BlockIndependence(4, 6), HMC()), RotationMoves),
        ({"nonlinearity": flt.Linear()}, HMC(), type(None)),
        ({"n_hidden_layers": 2}, HMC(), type(None)),
        ({"readout_scaling": "lazy"}, HMC(), type(None)),
        ({"temperature": math.inf}, HMC(), type(None)),
        ({"temperature": 0.0, "width": 12}, Tempering(STIFF_MOVES, n_levels=14), CodeMoves),
    ],
)
def test_the_sampler_is_chosen_by_what_freezes(changes, sampler, moves):
    found = guidance(evolve(SIGMOID, **changes))
    assert found.sampler == sampler
    assert isinstance(found.moves, moves)


def test_a_sampler_that_asks_for_no_blocks_costs_no_theory():
    found = advised(SIGMOID, HMC(n_leapfrog=3), lambda t: pytest.fail("solved"))
    assert found.sampler == HMC(n_leapfrog=3) and found.moves is None


def unsolvable(temperature):
    raise flt.ConvergenceError("no")


def test_moves_are_chosen_for_the_coordinates_that_are_sampled():
    # All weights of more inputs than samples: moves are not conditioned, and reach less far.
    task = flt.OrthogonalClassification(n_samples=8, class_ratios=(0.5, 0.5), n_inputs=12)
    cold = evolve(SIGMOID, task=task, width=20, temperature=1e-5)
    options = {"n_draws": 1, "n_chains": 1, "n_warmup": 0}
    assert isinstance(cold.sample(**options).sampler, Alternate)
    whole = cold.sample(coordinates="hidden weights", **options)
    assert isinstance(whole.sampler, Tempering)
    assert whole.continuation.plan.softest > cold.temperature


def test_without_a_theory_the_default_does_without_moves():
    assert advised(SIGMOID, None, unsolvable).sampler == HMC()
    with pytest.raises(flt.ConvergenceError):
        advised(SIGMOID, MOVES, unsolvable)


def test_where_the_theory_is_not_known_a_warmer_one_suggests_the_moves():
    def only_warm(temperature):
        return (
            unsolvable(temperature)
            if temperature < 2e-4
            else evolve(SIGMOID, temperature=temperature).solve()
        )

    assert isinstance(advised(evolve(SIGMOID, temperature=1e-4), None, only_warm).moves, CodeMoves)


def test_blocks_are_refused_where_no_moves_are_known():
    with pytest.raises(ValueError, match="target: expected one that proposes blocks"):
        evolve(SIGMOID, n_hidden_layers=2).sample(MOVES, n_draws=1, n_warmup=1)


# Stiffness ---------------------------------------------------------------------------------------


def test_stiffness_is_that_of_its_definition():
    target = IntegratedTarget(Reduction.of(SIGMOID.model).model)
    phi = flt.Sigmoid()(np.random.default_rng(0).normal(size=(1, 40, 8)))
    posterior = target.readout_posterior(target.tensor(phi))
    s, expected = posterior.kernel_scale, []
    for i in range(40):
        others = np.delete(phi[0], i, axis=0)
        gram = others.T @ others + SIGMOID.temperature / s * np.eye(8)
        kappa = phi[0, i] @ np.linalg.solve(gram, phi[0, i])
        a, variance = posterior.mean[0, i].numpy(), SIGMOID.model.readout_variance
        square = a @ a + 2 * variance / (1 + kappa)  # of two outputs
        expected.append(square * kappa / (2 * variance))
    assert stiffness(posterior) == pytest.approx(np.mean(expected), rel=1e-8)


def test_temperature_of_a_stiffness():
    target = IntegratedTarget(Reduction.of(SIGMOID.model).model)
    z = np.random.default_rng(0).normal(size=(2, 40, 8))
    found = [temperature_of(target, z, goal) for goal in (0.5, 2.0)]
    assert found[0] > found[1] > 0
    for temperature, goal in zip(found, (0.5, 2.0), strict=True):
        phi = target.tensor(flt.Sigmoid()(z))
        assert stiffness(target.at(temperature).readout_posterior(phi)) == pytest.approx(goal, rel=0.01)
    with pytest.raises(ValueError, match="goal"):
        temperature_of(target, z, 1e9)


def test_as_many_neurons_as_inputs_are_as_stiff_as_can_be():
    cold = evolve(SIGMOID, temperature=0.0, width=8)
    target = IntegratedTarget(Reduction.of(cold.model).model)
    phi = flt.Sigmoid()(np.random.default_rng(0).normal(size=(1, 8, 8)))
    assert stiffness(target.readout_posterior(target.tensor(phi))) > 1e6
    assert isinstance(guidance(cold).sampler, Tempering)


@pytest.mark.slow
def test_for_other_than_orthogonal_inputs_tempering_begins_where_moves_alone_fail():
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 2
    task = flt.ArrayTask.from_labels(rng.normal(size=(12, 30)) + labels[:, None], labels)
    warm = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=30, temperature=1e-2)
    found = advised(evolve(warm, temperature=0.0), None, lambda t: warm.solve())
    assert isinstance(found.sampler, Tempering)
    target = IntegratedTarget(Reduction.of(warm.model).model)
    z = np.stack([warm.solve().neurons(30, 1, seed=k).preactivations for k in range(2)])
    assert found.softest == pytest.approx(temperature_of(target, z, 3.0), rel=1e-6)


def test_the_prior_is_tempered_too():
    prior = evolve(SIGMOID, temperature=math.inf)
    samples = prior.sample(Tempering(HMC(), n_levels=2), n_draws=3, n_chains=2, n_warmup=2)
    assert np.isfinite(samples.draws.statistics.log_density).all()


# Runs --------------------------------------------------------------------------------------------


def assert_equal(one, two):
    np.testing.assert_array_equal(one.readouts, two.readouts)
    np.testing.assert_array_equal(one.draws.statistics.log_density, two.draws.statistics.log_density)


def test_moves_are_saved_with_the_samples(tmp_path):
    whole = SIGMOID.sample(n_draws=5, n_chains=2, n_warmup=10)
    SIGMOID.sample(n_draws=3, n_chains=2, n_warmup=10).save(tmp_path / "some")
    assert_equal(flt.load(tmp_path / "some").resume(2), whole)


@pytest.mark.parametrize("start", ["prior", "theory"])
def test_the_theory_that_a_run_waits_for_shows_its_progress(capfd, start):
    options = {"n_draws": 1, "n_chains": 1, "n_warmup": 0, "start": start}
    sampler = HMC() if start == "theory" else None
    evolve(SIGMOID).sample(sampler, progress=False, **options)
    assert capfd.readouterr().err == ""
    posterior = evolve(SIGMOID)
    posterior.sample(sampler, progress=True, **options)
    assert "mean field" in capfd.readouterr().err
    posterior.sample(sampler, progress=True, **options)
    assert "mean field" not in capfd.readouterr().err, "it is solved once"


def test_neurons_of_the_theory_are_a_start():
    z = SIGMOID.solve().neurons(40, 1, seed=3).preactivations
    one = SIGMOID.solve().neurons(40, 1, seed=3)
    kept = SIGMOID.sample(flt.HMC(step_size=1e-9), start=[one, one], n_chains=2, n_warmup=0, n_draws=1)
    np.testing.assert_allclose(kept.activations(1)[:, 0], flt.Sigmoid()(np.stack([z, z])), atol=1e-5)
    drawn = SIGMOID.sample(flt.HMC(step_size=1e-9), start="theory", n_chains=2, n_warmup=0, n_draws=1)
    phi = drawn.activations(1)[:, 0]
    assert np.abs(phi[0] - phi[1]).max() > 0.1
    assert np.abs(phi.mean((0, 1)) - SIGMOID.solve().neurons(4000, 1).activations.mean(0)).max() < 0.2


@pytest.mark.parametrize(
    ("changes", "start", "match"),
    [
        ({}, "theories", "start"),
        ({}, [1, 2], "start"),
        ({"n_hidden_layers": 2, "nonlinearity": flt.Softplus()}, "theory", "nonlinearity"),
    ],
)
def test_bad_starts(changes, start, match):
    with pytest.raises((TypeError, ValueError), match=match):
        evolve(SIGMOID, **changes).sample(flt.HMC(), start=start, n_chains=2, n_warmup=0, n_draws=1)
