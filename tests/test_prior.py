"""The scalings of the prior: docs/theory.md, section 1."""

import math

import numpy as np
import pytest
from attrs import evolve, frozen
from hypothesis import given, strategies as st

import fltheory as flt

positive = st.floats(0.1, 10)
depths = st.integers(1, 5)
sizes = st.integers(1, 10_000)
flags = st.booleans()


@given(positive, depths)
def test_one_variance_serves_all_layers(variance, depth):
    assert flt.GaussianPrior(variance).weight_variances(depth) == (variance,) * depth


@given(st.lists(positive, min_size=1, max_size=5))
def test_or_each_layer_has_its_own(variances):
    for given_variances in (variances, tuple(variances), np.array(variances)):
        prior = flt.GaussianPrior(given_variances)
        assert prior.weight_variances(len(variances)) == tuple(variances)
        assert hash(prior) == hash(flt.GaussianPrior(variances))


@pytest.mark.parametrize("depth", [1, 3])
def test_as_many_variances_as_layers(depth):
    prior = flt.GaussianPrior((1.0, 2.0))
    with pytest.raises(
        ValueError, match=f"^weight_variance: expected one variance for each of {depth} hidden"
    ):
        prior.weight_variances(depth)
    task = flt.OrthogonalClassification(4, (0.5, 0.5))
    with pytest.raises(ValueError, match="^weight_variance: "):
        flt.DeepNetworkPosterior(task, flt.Linear(), prior, n_hidden_layers=depth)


def effective(prior, p=10, depth=1, *, linear=False, lazy=False):
    return prior.effective_readout_variance(p, depth, is_linear=linear, is_lazy=lazy)


@given(positive, sizes, depths)
def test_auto_scales_with_the_samples(variance, p, depth):
    prior = flt.GaussianPrior(readout_variance=variance)
    assert effective(prior, p, depth) == pytest.approx(variance / p)
    assert effective(prior, p, depth, linear=True) == pytest.approx(variance / p ** (1 / depth))
    assert effective(prior, p, depth, lazy=True) == variance
    assert effective(prior, p, depth, linear=True, lazy=True) == variance


@given(positive, sizes, depths, flags, flags)
def test_none_does_not_scale(variance, p, depth, linear, lazy):
    prior = flt.GaussianPrior(readout_variance=variance, scaling="none")
    assert effective(prior, p, depth, linear=linear, lazy=lazy) == variance


@given(st.floats(-3, 3), positive, sizes, sizes, depths, flags, flags)
def test_an_exponent_is_an_exponent(exponent, variance, p, q, depth, linear, lazy):
    prior = flt.GaussianPrior(readout_variance=variance, scaling=exponent)
    one, other, both = (effective(prior, n, depth, linear=linear, lazy=lazy) for n in (p, q, p * q))
    assert math.log(one * other / variance) == pytest.approx(math.log(both), abs=1e-9)
    assert effective(prior, 1, depth, linear=linear, lazy=lazy) == pytest.approx(variance)
    assert one == pytest.approx(variance * p**-exponent)


def test_exponents_that_overflow_are_refused():
    for exponent in (400, -400):
        with pytest.raises(ValueError, match="^scaling: expected an exponent that leaves a positive readout"):
            effective(flt.GaussianPrior(scaling=exponent), 1000)
        task = flt.OrthogonalClassification(1000, (0.5, 0.5))
        with pytest.raises(ValueError, match="^scaling: "):
            flt.DeepNetworkPosterior(task, flt.Tanh(), flt.GaussianPrior(scaling=exponent))


def test_the_posterior_uses_them():
    task = flt.OrthogonalClassification(8, (0.5, 0.5))
    posterior = flt.DeepNetworkPosterior(
        task, flt.Tanh(), flt.GaussianPrior((2.0, 3.0), 4.0), n_hidden_layers=2
    )
    assert posterior.model.weight_variances == (2.0, 3.0)
    assert posterior.model.readout_variance == pytest.approx(4 / 8)
    # Whether phi is linear is decided from its values.
    for phi in (flt.Linear(), flt.LeakyReLU(1.0)):
        linear = evolve(posterior, nonlinearity=phi)
        assert linear.model.readout_variance == pytest.approx(4 / math.sqrt(8))
    assert evolve(posterior, readout_scaling="lazy").model.readout_variance == 4.0
    assert (posterior.model.input_kernel == 2 * np.eye(8)).all()


# A user's prior ----------------------------------------------------------------------------------


@frozen
class Narrowing(flt.Prior):
    """Variances that fall from layer to layer."""

    first: object = 1.0
    readout: object = 0.5

    def weight_variances(self, n_hidden_layers):
        return tuple(self.first / 2**layer for layer in range(n_hidden_layers))

    def effective_readout_variance(self, n_samples, n_hidden_layers, *, is_linear, is_lazy):
        return self.readout


def posterior_of(prior):
    task = flt.OrthogonalClassification(4, (0.5, 0.5))
    return flt.DeepNetworkPosterior(task, flt.Linear(), prior, n_hidden_layers=2, width=20, temperature=0.01)


def test_a_user_s_prior():
    posterior = posterior_of(Narrowing())
    assert posterior.model.weight_variances == (1.0, 0.5) and posterior.model.readout_variance == 0.5
    assert posterior.solve().residual < 1e-6


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["first", "readout"])
def test_a_user_s_prior_of_no_positive_variance_is_refused(name, value):
    with pytest.raises(ValueError, match=r"^prior\..* finite real number above 0, got "):
        posterior_of(Narrowing(**{name: value}))


def test_a_user_s_prior_of_too_few_layers_is_refused():
    class Short(Narrowing):
        def weight_variances(self, n_hidden_layers):
            return (1.0,)

    with pytest.raises(
        ValueError, match=r"^prior.weight_variances: expected one variance for each of 2 hidden"
    ):
        posterior_of(Short())


def test_a_prior_without_a_scaling_is_abstract():
    class Half(flt.Prior):
        def weight_variances(self, n_hidden_layers):
            return (1.0,) * n_hidden_layers

    with pytest.raises(TypeError, match="effective_readout_variance"):
        Half()
