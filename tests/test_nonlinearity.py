"""Every nonlinearity, ours and a user's, obeys the same laws in numpy and in torch."""

import math
import pickle

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

import fltheory as flt
from fltheory.numerics.gaussian import gaussian_mean


@frozen
class Swish(flt.Nonlinearity):
    """phi(z) = z / (1 + exp(-beta z)): a formula and nothing else."""

    beta: float = 1.0

    def __call__(self, z):
        return z * flt.special(z).expit(self.beta * z)


@frozen
class Wave(flt.Nonlinearity):
    """phi(z) = sin(z) + z / 3: no end in sight, but a slope."""

    def __call__(self, z):
        return flt.namespace(z).sin(z) + z / 3


@frozen
class Twice(flt.Nonlinearity):
    """A user's 2 z, not called linear."""

    def __call__(self, z):
        return 2 * z


# phi: its slopes at -infinity and infinity
STOCK = {
    flt.Linear(): (1, 1),
    flt.Sigmoid(): (0, 0),
    flt.Erf(): (0, 0),
    flt.Tanh(): (0, 0),
    flt.ReLU(): (0, 1),
    flt.LeakyReLU(): (0.01, 1),
    flt.LeakyReLU(0.3): (0.3, 1),
    flt.LeakyReLU(-0.5): (-0.5, 1),
    flt.LeakyReLU(1.0): (1, 1),
    flt.LeakyReLU(0.0): (0, 1),
    flt.Softplus(): (0, 1),
    flt.Softplus(beta=20.0): (0, 1),
    flt.GELU(): (0, 1),
}
USERS = {Swish(): (0, 1), Swish(beta=2.0): (0, 1), Swish(beta=-1.0): (1, 0), Twice(): (2, 2)}
EVERY = STOCK | USERS

every = pytest.mark.parametrize("phi", EVERY, ids=repr)
arrays = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3), elements=st.floats(-30, 30))


# One formula, two libraries ----------------------------------------------------------------------


@every
def test_it_obeys_the_laws(phi):
    flt.testing.check_nonlinearity(phi)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_keeps_its_precision_and_gradient(phi, dtype):
    z = torch.linspace(-3, 3, 8, dtype=dtype, requires_grad=True)
    values = phi(z)
    assert values.dtype == phi.derivative(z).dtype == dtype and values.requires_grad
    (gradient,) = torch.autograd.grad(values.sum(), z)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(phi.derivative(z).detach(), gradient, rtol=0, atol=tolerance)


@every
def test_numbers_and_integers_are_served_too(phi):
    z = np.array([-2, 0, 3])
    expected = phi(z.astype(float))
    assert_allclose(phi(z), expected)
    assert_allclose([phi(-2), phi(0), phi(3)], expected)
    assert_allclose([phi(x) for x in (-2.0, 0.0, 3.0)], expected)
    assert_allclose(phi.derivative(z), phi.derivative(z.astype(float)))
    tensor = torch.tensor([-2, 0, 3])
    assert_allclose(phi(tensor).numpy(), expected, atol=1e-6)
    assert_allclose(phi.derivative(tensor).numpy(), phi.derivative(z.astype(float)), atol=1e-6)


@every
def test_nan_stays_nan_and_values_far_out_are_finite(phi):
    assert np.isnan(phi(np.array([np.nan]))).all()
    assert phi(torch.tensor([math.nan])).isnan().all()
    assert np.isfinite(phi(np.array([-1e6, 1e6]))).all()


# Derivatives -------------------------------------------------------------------------------------


def test_derivative_of_tensors_works_without_gradients_around_it():
    with torch.no_grad():
        assert_allclose(Swish().derivative(torch.zeros(2)).numpy(), 0.5)


@pytest.mark.parametrize("phi", [flt.ReLU(), flt.LeakyReLU(0.25)], ids=repr)
def test_both_libraries_take_the_left_slope_at_the_kink(phi):
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(phi(leaf).sum(), leaf)
    assert (
        gradient.item()
        == phi.derivative(leaf).item()
        == phi.derivative(np.zeros(1))[0]
        == phi.asymptotic_slopes[0]
    )


# Slopes, bounded and linear ----------------------------------------------------------------------


@pytest.mark.parametrize(("phi", "slopes"), EVERY.items(), ids=map(repr, EVERY))
def test_slopes_at_infinity(phi, slopes):
    assert_allclose(phi.asymptotic_slopes, slopes, atol=1e-9)
    assert all(type(slope) is float for slope in phi.asymptotic_slopes)
    assert_allclose(phi.derivative(np.array([-1e5, 1e5])), slopes, atol=1e-6)
    assert phi.is_bounded == (slopes == (0, 0))


LINEAR = [flt.Linear(), flt.LeakyReLU(1.0), Twice()]


@every
def test_linear_is_decided_from_values(phi):
    assert phi.is_linear == (phi in LINEAR)


def test_almost_linear_is_not_linear():
    assert not flt.LeakyReLU(1 - 1e-9).is_linear

    class Affine(flt.Nonlinearity):
        def __call__(self, z):
            return z + 1e-6

    class Zero(flt.Nonlinearity):
        def __call__(self, z):
            return 0 * z

    assert not Affine().is_linear and Affine().asymptotic_slopes == pytest.approx((1, 1))
    assert not Zero().is_linear and Zero().is_bounded


def test_a_slope_may_be_declared():
    class Arctan(flt.Nonlinearity):
        def __call__(self, z):
            return flt.namespace(z).atan(z)

    class Declared(Arctan):
        asymptotic_slopes = (0.0, 0.0)

    assert Arctan().is_bounded and Declared().is_bounded


class Formula(flt.Nonlinearity):
    """A user's formula in numpy, without a name."""

    def __init__(self, formula):
        self.formula = formula

    def __call__(self, z):
        return self.formula(z)


SLOPES = {
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), (0, 1)),
    "swish": (lambda z: z / (1 + np.exp(-z)), (0, 1)),
    "sin": (np.sin, (0, 0)),
    "cos": (np.cos, (0, 0)),
    "bump": (lambda z: np.exp(-z * z), (0, 0)),
    "sinc": (np.sinc, (0, 0)),
    "arctan": (np.arctan, (0, 0)),
    "softsign": (lambda z: z / (1 + np.abs(z)), (0, 0)),
    "algebraic": (lambda z: z / np.sqrt(1 + z**2), (0, 0)),
    "hard tanh": (lambda z: np.clip(z, -1, 1), (0, 0)),
    "log": (lambda z: np.log1p(np.abs(z)), (0, 0)),
    "root": (lambda z: np.sqrt(np.abs(z)), (0, 0)),
    "line and wave": (lambda z: z + np.sin(z), (1, 1)),
    "line and root": (lambda z: z + np.sqrt(np.abs(z)), (1, 1)),
    "far kink": (lambda z: np.maximum(z - 1e5, 0), (0, 1)),
    "rational": (lambda z: z**3 / (1 + z**2), (1, 1)),
}


@pytest.mark.parametrize(("formula", "slopes"), SLOPES.values(), ids=SLOPES.keys())
def test_slopes_of_formulas_that_approach_them_slowly_or_not_at_all(formula, slopes):
    assert Formula(formula).asymptotic_slopes == pytest.approx(slopes, rel=1e-9, abs=0)


STEEP = {
    "square": np.square,
    "cube": lambda z: z**3,
    "with a logarithm": lambda z: z * np.log1p(np.abs(z)),
    "waves that grow": lambda z: z * np.sin(z),
}


@pytest.mark.parametrize("formula", STEEP.values(), ids=STEEP.keys())
def test_without_a_slope_it_is_refused_and_the_slopes_that_were_found_are_named(formula):
    expected = (
        r"^nonlinearity: expected at most linear growth, got slopes .* at .z. = 1e\+32 and .* at 1e\+64"
    )
    with pytest.raises(ValueError, match=expected):
        Formula(formula).asymptotic_slopes  # noqa: B018


class _Power(flt.Nonlinearity):
    def __init__(self, power):
        self.power = power

    def __call__(self, z):
        return flt.namespace(z).abs(z) ** self.power


class _Exponential(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).exp(z)


class _Overflowing(flt.Nonlinearity):
    def __call__(self, z):
        return z / (1 + flt.namespace(z).exp(-z)) * flt.namespace(z).exp(-z)


@pytest.mark.parametrize("power", [1.1, 1.5, 2, 3])
def test_growth_faster_than_linear_is_refused(power):
    with pytest.raises(ValueError, match="^nonlinearity: expected at most linear growth, got slopes"):
        _Power(power).asymptotic_slopes  # noqa: B018
    with pytest.raises(ValueError, match="^nonlinearity: "):
        _Power(power).is_bounded  # noqa: B018
    task = flt.OrthogonalClassification(4, (0.5, 0.5))
    with pytest.raises(ValueError, match="^nonlinearity: "):
        flt.DeepNetworkPosterior(task, _Power(power), temperature=0.1).solve()


@pytest.mark.parametrize("phi", [_Exponential(), _Overflowing()])
def test_values_that_overflow_are_refused(phi):
    with pytest.raises(ValueError, match="^nonlinearity: expected finite values at .z. = 10000"):
        phi.asymptotic_slopes  # noqa: B018
    assert not phi.is_linear


# The formulas ------------------------------------------------------------------------------------


@given(z=arrays)
def test_the_formulas(z):
    erf = np.vectorize(math.erf, otypes=[float])
    half = math.sqrt(math.pi) / 2
    assert_allclose(flt.Erf()(z), erf(half * z), atol=1e-15)
    assert_allclose(flt.Sigmoid()(z), (1 + erf(half * z)) / 2, atol=1e-15)
    assert_allclose(flt.Tanh()(z), np.tanh(z), atol=1e-15)
    assert (flt.ReLU()(z) == np.maximum(z, 0)).all()
    assert (flt.LeakyReLU(0.1)(z) == np.where(z > 0, z, 0.1 * z)).all()
    assert (flt.Linear()(z) == z).all()
    assert_allclose(flt.Softplus(3.0)(z), np.logaddexp(0, 3 * z) / 3, rtol=1e-13, atol=1e-16)
    assert_allclose(flt.GELU()(z), z * (0.5 + 0.5 * erf(z / math.sqrt(2))), atol=1e-14)


@given(z=arrays)
def test_symmetries(z):
    assert_allclose(flt.Sigmoid()(-z), 1 - flt.Sigmoid()(z), atol=1e-15)
    for odd in (flt.Erf(), flt.Tanh(), flt.Linear()):
        assert_allclose(odd(-z), -odd(z), atol=1e-15)
    assert_allclose(flt.ReLU()(z) - flt.ReLU()(-z), z)
    for gated in (Swish(), flt.Softplus(2.0), flt.GELU()):
        assert_allclose(gated(z) - gated(-z), z, atol=1e-13)


def test_slopes_at_the_origin():
    for phi, slope in ((flt.Sigmoid(), 0.5), (flt.Erf(), 1), (flt.Tanh(), 1), (Swish(), 0.5)):
        assert phi.derivative(np.zeros(1))[0] == pytest.approx(slope)


@given(st.floats(-3, 3), st.floats(0, 4))
def test_gaussian_average_of_the_sigmoid(mean, variance):
    """E phi(z) = phi(mean / sqrt(1 + pi variance / 2)): why it has this form."""
    average = gaussian_mean(flt.Sigmoid(), np.array(mean), np.array(variance))
    assert_allclose(average, flt.Sigmoid()(mean / math.sqrt(1 + math.pi * variance / 2)), atol=1e-12)


# Gaussian averages -------------------------------------------------------------------------------


def test_kinks():
    assert [phi.kinks for phi in (flt.ReLU(), flt.LeakyReLU(0.3))] == [(0.0,), (0.0,)]
    assert not any(phi.kinks for phi in (flt.Linear(), flt.LeakyReLU(1.0), flt.GELU(), flt.Softplus(20.0)))
    assert Formula(lambda z: np.clip(z, -1, 1)).kinks == (-1.0, 1.0)
    assert Formula(lambda z: np.maximum(z - 0.3, 0)).kinks == (0.3,)


def test_a_kink_may_be_declared():
    class Far(flt.Nonlinearity):
        kinks = (1e5,)

        def __call__(self, z):
            xp = flt.namespace(z)
            return xp.where(z > 1e5, z - 1e5, 0 * z)

    mean = gaussian_mean(Far(), np.array([1e5]), np.ones(1), Far().gaussian_rule)
    assert_allclose(mean, 1 / math.sqrt(2 * math.pi), rtol=1e-9)


COVARIANCES = {
    "full": (1.0, np.random.default_rng(0).standard_normal((6, 8))),
    "low rank": (4.0, np.random.default_rng(1).standard_normal((6, 3))),
    "equal, opposite, zero and nearly equal": (
        1.0,
        np.array([[1, 2], [1, 2], [-1, -2], [0, 0], [1.000001, 2], [2, -1]], dtype=float),
    ),
    "large": (200.0, np.random.default_rng(2).standard_normal((6, 5)) / 3),
    "small": (1e-8, np.random.default_rng(3).standard_normal((6, 5))),
}


@every
@pytest.mark.parametrize(("scale", "factor"), COVARIANCES.values(), ids=COVARIANCES.keys())
def test_the_gaussian_kernel_is_the_numeric_default_s(phi, scale, factor):
    covariance = scale * factor @ factor.T
    kernel = phi.gaussian_kernel(covariance)
    numeric = flt.Nonlinearity.gaussian_kernel(phi, covariance)
    assert_allclose(kernel, numeric, rtol=0, atol=1e-10 * np.abs(numeric).max())
    assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-10 * np.abs(kernel).max()


@every
def test_the_gaussian_kernel_is_that_of_drawn_neurons(phi):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((4, 6))
    z = rng.standard_normal((200_000, 6)) @ factor.T
    products = np.einsum("ni,nj->nij", phi(z), phi(z))
    error = products.std(0) / math.sqrt(len(z))
    assert (np.abs(products.mean(0) - phi.gaussian_kernel(factor @ factor.T)) < 5 * error).all()
    # negative twin: a kernel of other variances is told apart
    assert (np.abs(products.mean(0) - phi.gaussian_kernel(1.1 * factor @ factor.T)) > 5 * error).any()


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 5.0])
def test_quadrature_error_of_what_the_rules_resolve(scale):
    for phi in (*EVERY, Formula(lambda z: np.clip(z, -1, 1)), Formula(lambda z: np.sin(50 * z))):
        assert phi.quadrature_error(scale) < 1e-7


def test_quadrature_error_of_what_they_do_not():
    assert Formula(lambda z: np.tanh(3000 * z)).quadrature_error(1.0) > 1e-2
    assert 1e-7 < Formula(lambda z: np.sqrt(np.abs(z))).quadrature_error(1.0) < 1e-3
    assert Formula(np.exp).quadrature_error(20.0) > 1e-2
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^scale: expected a finite real number above 0"):
            flt.Tanh().quadrature_error(scale)


# Values, and use by the engine -------------------------------------------------------------------


def test_they_are_values():
    for phi in STOCK:
        assert (
            phi == evolve(phi) and hash(phi) == hash(evolve(phi)) and pickle.loads(pickle.dumps(phi)) == phi
        )
    assert flt.LeakyReLU(0.1) != flt.LeakyReLU(0.2) and flt.Tanh() != flt.Erf()
    assert flt.LeakyReLU(1) == flt.LeakyReLU(1.0)
    with pytest.raises(AttributeError):
        flt.LeakyReLU().negative_slope = 1.0


def test_a_nonlinearity_without_a_formula_is_abstract():
    class Nothing(flt.Nonlinearity):
        pass

    with pytest.raises(TypeError, match="__call__"):
        Nothing()


@pytest.mark.parametrize("phi", [Swish(2.0), Wave(), Twice()], ids=repr)
def test_a_user_s_formula_can_be_sampled(phi):
    task = flt.OrthogonalClassification(3, (0.5, 0.5))
    posterior = flt.DeepNetworkPosterior(task, phi, width=6, temperature=0.1)
    samples = posterior.sample(n_draws=2, n_chains=2, n_warmup=20, progress=False)
    assert np.isfinite(samples.kernel(1)).all() and np.isfinite(samples.dual_field).all()


def test_a_user_s_linear_formula_is_solved_as_a_linear_network():
    task = flt.OrthogonalClassification(3, (0.5, 0.5))
    solution = flt.DeepNetworkPosterior(task, Twice(), width=60, temperature=0.01).solve()
    assert solution.method == "closed form" and solution.residual < 1e-6
    leaky, linear = (
        flt.DeepNetworkPosterior(task, phi, width=60, temperature=0.01).solve()
        for phi in (flt.LeakyReLU(1.0), flt.Linear())
    )
    assert_allclose(leaky.kernel(1), linear.kernel(1))


MISFITS = {
    "sum": lambda z: z.sum(),
    "reshape": lambda z: z.reshape(-1, 1),
    "complex": lambda z: z + 1j,
    "comparison": lambda z: z > 0,
    "nan": lambda z: np.sqrt(np.where(z > 0, z, np.nan)),
    "text": lambda z: "z",
    "nothing": lambda z: None,
}


@pytest.mark.parametrize("formula", MISFITS.values(), ids=MISFITS.keys())
def test_a_formula_that_is_not_elementwise_and_real_is_refused(formula):
    class Misfit(flt.Nonlinearity):
        def __call__(self, z):
            return formula(z)

    task = flt.OrthogonalClassification(3, (0.5, 0.5))
    with pytest.raises(
        ValueError, match="^nonlinearity: expected an elementwise function with finite real values"
    ):
        flt.DeepNetworkPosterior(task, Misfit())
