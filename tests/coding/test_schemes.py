"""Coding schemes: the measures tell planted ones apart, and the theories of the three nonlinearities."""

import numpy as np
import pytest
from attrs import evolve, frozen

import fltheory as flt
from fltheory.coding import coding_scheme
from fltheory.coding.schemes import participation

POSTERIOR = flt.DeepNetworkPosterior(
    flt.OrthogonalClassification(n_samples=20, class_ratios=(0.5, 0.5)),
    flt.Sigmoid(),
    width=200,
    temperature=2e-4,
)


@frozen(eq=False)
class OneNetwork(flt.Representation):
    """A network that is given by its neurons."""

    model: object
    layer: flt.Neurons
    dual_field = None

    def kernel(self, layer, inputs=None):
        raise NotImplementedError

    def predict(self, inputs=None):
        raise NotImplementedError

    def neurons(self, n, layer, seed=0):
        return self.layer


def condensed():
    """A ReLU network in which one neuron a class does three quarters of the work."""
    rng, n, targets = np.random.default_rng(0), 200, POSTERIOR.task.targets
    z, readouts = rng.standard_normal((n, 20)), 0.3 * rng.standard_normal((n, 2))
    z[[50, 120]] = 1.1 * np.sqrt(n) * targets.T
    readouts[[50, 120]] = 0.7 * np.sqrt(n) * np.eye(2)
    model = evolve(POSTERIOR, nonlinearity=flt.ReLU()).model
    return OneNetwork(model, flt.Neurons(np.maximum(z, 0.0), z, readouts))


@pytest.fixture(scope="module")
def schemes():
    return {
        "analog": coding_scheme(evolve(POSTERIOR, nonlinearity=flt.Linear()).solve()),
        "redundant": coding_scheme(POSTERIOR.solve()),
        "sparse": coding_scheme(condensed()),
    }


@pytest.mark.parametrize("kind", ["analog", "redundant", "sparse"])
def test_each_kind_of_scheme_is_told(schemes, kind):
    assert schemes[kind].kind == kind


@pytest.mark.slow
def test_each_nonlinearity_has_its_scheme():
    """At P = 40 and N T = .03, where one neuron a class has condensed."""
    task = flt.OrthogonalClassification(n_samples=40, class_ratios=(0.5, 0.5))
    posterior = evolve(POSTERIOR, task=task, width=300, temperature=1e-4)
    phis = {"analog": flt.Linear(), "redundant": flt.Sigmoid(), "sparse": flt.ReLU()}
    for kind, phi in phis.items():
        assert coding_scheme(evolve(posterior, nonlinearity=phi).solve()).kind == kind


def test_an_untrained_network_is_analog():
    for other in ({"temperature": np.inf}, {"readout_scaling": "lazy"}):
        assert coding_scheme(evolve(POSTERIOR, **other).solve()).kind == "analog"


def test_contributions_make_up_the_output(schemes):
    for scheme in schemes.values():
        np.testing.assert_allclose(scheme.contributions.sum(0), 1.0)
        assert scheme.contributions.shape == (200, 2)
        np.testing.assert_allclose(scheme.top_share(200), 1.0)
        strongest = scheme.contributions[scheme.most_active(3)].sum(1)
        assert (np.diff(strongest) <= 0).all() and strongest[0] == scheme.contributions.sum(1).max()


def test_few_neurons_carry_a_sparse_output(schemes):
    """One condensed neuron a class."""
    assert (schemes["sparse"].participation < 4).all() and (schemes["sparse"].top_share(1) > 0.5).all()
    assert sorted(schemes["sparse"].most_active(2)) == [50, 120]
    for kind in ("analog", "redundant"):
        assert (schemes[kind].participation > 20).all() and (schemes[kind].top_share(1) < 0.2).all()


def test_readouts_of_a_redundant_scheme_have_a_gap(schemes):
    assert schemes["redundant"].readout_gap > 5.0
    assert schemes["analog"].readout_gap == 0.0


def test_neurons_of_a_redundant_scheme_are_selective(schemes):
    selective = schemes["redundant"]
    assert selective.layer_selectivity > 0.8 and np.median(selective.selectivity) > 0.8
    assert schemes["analog"].layer_selectivity < selective.layer_selectivity
    for scheme in schemes.values():
        assert (scheme.selectivity >= 0).all() and (scheme.selectivity <= 1 + 1e-12).all()


def test_selectivity_without_learning_is_that_of_chance():
    """Of n = 4000 neurons the mean is (C - 1) / (P - 1) = 1/19 within .0011 a standard error."""
    prior = coding_scheme(evolve(POSTERIOR, temperature=np.inf).solve(), n=4000)
    assert prior.selectivity.mean() == pytest.approx(1 / 19, abs=0.006)


@pytest.mark.parametrize(("n_equal", "n_silent"), [(1, 9), (7, 0), (5, 100)])
def test_participation_counts_neurons(n_equal, n_silent):
    column = np.repeat([0.3, 0.0], (n_equal, n_silent))[:, None]
    np.testing.assert_allclose(participation(np.hstack([column, -2 * column])), n_equal)
    assert participation(np.zeros((3, 1))) == 0.0


def test_a_hidden_layer_and_a_task_without_labels_have_schemes_too():
    task = flt.ArrayTask(np.random.default_rng(0).normal(size=(8, 20)), np.linspace(-1, 1, 8))
    linear = {"nonlinearity": flt.Linear(), "n_hidden_layers": 2, "width": 30}
    posterior = evolve(POSTERIOR, task=task, temperature=1e-2, **linear)
    networks = posterior.sample(flt.HMC(), n_draws=2, n_chains=1, n_warmup=5, progress=False)
    scheme = coding_scheme(networks, layer=1)
    assert scheme.contributions.shape == (30, 1) and scheme.readout_gap is None
    assert scheme.selectivity is None and scheme.layer_selectivity is None
    assert coding_scheme(networks).contributions.shape == (30, 1)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"representation": np.ones((3, 4))}, TypeError, "representation"),
        ({"layer": 2}, ValueError, "layer"),
        ({"n": 0}, ValueError, "n"),
        ({"seed": -1}, ValueError, "seed"),
        ({"labels": [0]}, ValueError, "labels"),
    ],
)
def test_bad_arguments_are_named(options, error, name):
    theory = evolve(POSTERIOR, nonlinearity=flt.Linear()).solve()
    with pytest.raises(error, match=f"^{name}:"):
        coding_scheme(**{"representation": theory} | options)


def test_bad_numbers_of_neurons_are_named(schemes):
    for method in (schemes["sparse"].top_share, schemes["sparse"].most_active):
        with pytest.raises(ValueError, match="^k:"):
            method(201)
