"""The laws of a nonlinearity hold for good ones, and each planted fault is named."""

import inspect

import numpy as np
import pytest
import torch
from attrs import frozen

import fltheory as flt
from fltheory.testing import (
    NONLINEARITY_LAWS,
    LawViolation,
    LawWarning,
    check_nonlinearity,
    nonlinearity_laws,
)


@frozen
class Swish(flt.Nonlinearity):
    beta: float = 1.0

    def __call__(self, z):
        return z * flt.special(z).expit(self.beta * z)


@frozen
class Arctan(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).atan(z)


@frozen
class HardTanh(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).clip(z, -1.0, 1.0)


@frozen
class Sine(flt.Nonlinearity):
    """Two slopes of its own, a derivative of its own."""

    def __call__(self, z):
        return flt.namespace(z).sin(z)

    def derivative(self, z):
        return flt.namespace(z).cos(z)


@frozen
class Softsign(flt.Nonlinearity):
    asymptotic_slopes = (0.0, 0.0)

    def __call__(self, z):
        return z / (1.0 + flt.namespace(z).abs(z))


@frozen
class Wave(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).sin(z) + z / 3


GOOD = [
    flt.Linear(),
    flt.Sigmoid(),
    flt.Erf(),
    flt.Tanh(),
    flt.ReLU(),
    flt.GELU(),
    flt.Softplus(),
    flt.Softplus(beta=20.0),
    *(flt.LeakyReLU(slope) for slope in (0.01, 0.3, -0.5, 0.0, 1.0)),
    *(Swish(beta) for beta in (1.0, 2.0, -1.0)),
    Arctan(),
    HardTanh(),
    Sine(),
    Softsign(),
    Wave(),
]


@pytest.mark.parametrize("phi", GOOD, ids=repr)
def test_good_ones_pass(phi):
    check_nonlinearity(phi)


# Planted faults ----------------------------------------------------------------------------------


class Planted(flt.Nonlinearity):
    """tanh, in which each subclass plants one fault."""

    def __call__(self, z):
        return flt.namespace(z).tanh(z)


class WrongSlopes(Planted):
    asymptotic_slopes = (0.0, 0.01)


class ListedSlopes(Planted):
    asymptotic_slopes = (0.0,)


class NotBounded(Planted):
    is_bounded = False


class CalledLinear(Planted):
    is_linear = True


class NotCalledLinear(flt.Nonlinearity):
    is_linear = False

    def __call__(self, z):
        return 2 * z


class WrongDerivative(Planted):
    def derivative(self, z):
        return 1.001 * (1 - flt.namespace(z).tanh(z) ** 2)


class WrongTensorDerivative(Planted):
    def derivative(self, z):
        exact = super().derivative(z)
        return exact * 1.001 if isinstance(z, torch.Tensor) else exact


class Centred(Planted):
    def __call__(self, z):
        return super().__call__(z - z.mean())


class Cumulative(Planted):
    def __call__(self, z):
        return super().__call__(flt.namespace(z).cumsum(z) if z.ndim else z)


class Noisy(Planted):
    def __call__(self, z):
        return super().__call__(z) + 1e-9 * np.random.default_rng().standard_normal()


class Adaptive(Planted):
    """Remembers the largest input, as a running normalisation does."""

    largest = 1.0

    def __call__(self, z):
        self.largest = max(self.largest, float(abs(z).max())) if np.size(z) else self.largest
        return super().__call__(z / self.largest)


class InPlace(Planted):
    def __call__(self, z):
        if isinstance(z, np.ndarray) and z.ndim:
            np.clip(z, -3, 3, out=z)
        return super().__call__(z)


class NumpyOnly(Planted):
    def __call__(self, z):
        return np.tanh(np.asarray(z))


class TorchOnly(Planted):
    def __call__(self, z):
        return torch.tanh(z)


class Single(Planted):
    def __call__(self, z):
        value = super().__call__(z)
        return value.astype(np.float32) if isinstance(value, np.ndarray) else value


class Flat(Planted):
    def __call__(self, z):
        return super().__call__(z).reshape(-1)


class Detached(Planted):
    def __call__(self, z):
        return super().__call__(z.detach() if isinstance(z, torch.Tensor) else z)


class Overflowing(flt.Nonlinearity):
    def __call__(self, z):
        e = flt.namespace(z).exp(z)
        return e / (1 + e)


class OverflowingGradient(flt.Nonlinearity):
    """Softplus whose masked branch has a gradient of 0 times infinity in torch."""

    def __call__(self, z):
        xp = flt.namespace(z)
        return xp.where(z > 30, z, xp.log1p(xp.exp(z)))


class Quadratic(flt.Nonlinearity):
    def __call__(self, z):
        return z * z


class Step(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).where(z > 0.3, z * 0 + 1.0, z * 0)


class Rapid(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).sin(1e4 * z)


class Zigzag(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).abs(2 * z - flt.namespace(z).round(2 * z))


class WrongKernel(Planted):
    def gaussian_kernel(self, covariance):
        return super().gaussian_kernel(covariance) * 1.000001


class WrongKinks(HardTanh):
    kinks = (-1.0, 1.01)


class NumpyFormula(flt.Nonlinearity):
    """Numpy's function, which takes tensors too, and hands them back without a gradient."""

    def __call__(self, z):
        return np.tanh(z)


class OtherInTorch(Planted):
    def __call__(self, z):
        return super().__call__(z) * (1 + 1e-10 * isinstance(z, torch.Tensor))


# fault: the laws that it breaks, exactly
FAULTS = {
    WrongSlopes: {"slopes at infinity"},
    ListedSlopes: {"slopes at infinity"},
    NotBounded: {"kind"},
    CalledLinear: {"kind"},
    NotCalledLinear: {"kind"},
    WrongDerivative: {"derivative", "gradient"},
    WrongTensorDerivative: {"gradient"},
    Centred: {"elementwise"},
    Cumulative: {"elementwise"},
    Noisy: {"pure"},
    Adaptive: {"pure"},
    InPlace: {"pure"},
    NumpyOnly: {"form", "gradient", "torch"},
    TorchOnly: {"form"},
    Single: {"form"},
    Flat: {"form"},
    Detached: {"gradient"},
    Overflowing: {"finite", "slopes at infinity"},
    OverflowingGradient: {"gradient"},
    Quadratic: {"slopes at infinity"},
    Step: {"continuous"},
    Rapid: {"continuous"},
    Zigzag: {"resolved"},
    OtherInTorch: {"torch"},
    WrongKernel: {"declarations"},
    WrongKinks: {"declarations", "resolved"},
    NumpyFormula: {"gradient"},
}


# and those that leave all other laws untouched
SURGICAL = (
    WrongSlopes,
    ListedSlopes,
    NotBounded,
    CalledLinear,
    NotCalledLinear,
    WrongDerivative,
    WrongTensorDerivative,
    WrongKernel,
    OtherInTorch,
    OverflowingGradient,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_named(fault):
    with pytest.raises(LawViolation) as caught:
        check_nonlinearity(fault())
    failures = set(caught.value.failures)
    assert failures == FAULTS[fault] if fault in SURGICAL else failures >= FAULTS[fault]


# What is said ------------------------------------------------------------------------------------


def test_all_failures_are_told_together_with_place_and_size():
    with pytest.raises(LawViolation) as caught:
        check_nonlinearity(WrongDerivative())
    text = str(caught.value)
    assert text.startswith("the nonlinearity <") and f"breaks 2 of {len(NONLINEARITY_LAWS)} laws" in text
    assert "- derivative: it has the derivative that differences of its values give" in text
    assert "- gradient: " in text
    (found,) = caught.value.failures["derivative"]
    assert found.startswith("derivative at z = ") and "off by 0.001, allowed" in found


def test_an_exception_of_the_formula_is_told_with_its_input():
    with pytest.raises(LawViolation, match=r"raised TypeError: tanh.*from numpy input of shape \(\)"):
        check_nonlinearity(TorchOnly())


@pytest.mark.parametrize("thing", [flt.Tanh, np.tanh, None])
def test_what_is_no_nonlinearity_is_refused(thing):
    with pytest.raises(TypeError, match="^phi: expected a Nonlinearity, got"):
        check_nonlinearity(thing)


class Unhashable(Planted):
    __hash__ = None

    def __eq__(self, other):
        return type(other) is type(self)

    def __repr__(self):
        return "Unhashable()"


def wishes(phi):
    with pytest.warns(LawWarning) as caught:
        check_nonlinearity(phi)
    return "; ".join(str(warning.message) for warning in caught)


def test_what_is_good_to_have_is_asked_for_by_warnings():
    class Local(Planted):
        pass

    assert "cannot be pickled" in wishes(Local()) and "a repr that shows the parameters" in wishes(Local())
    assert "equal parameters" in wishes(Planted()) and "hashable" not in wishes(Planted())
    assert "hashable" in wishes(Unhashable()) and "repr" not in wishes(Unhashable())


def test_laws_have_names_of_their_own():
    assert len({law.name for law in NONLINEARITY_LAWS}) == len(NONLINEARITY_LAWS)
    assert all(law.statement for law in NONLINEARITY_LAWS)


def test_every_average_that_a_class_may_override_is_held_to_its_default():
    """Arguments are known for each method of the base class that the law compares."""
    for name, default in vars(flt.Nonlinearity).items():
        if inspect.isfunction(default) and not name.startswith("_") and name != "derivative":
            parameters = set(inspect.signature(default).parameters) - {"self"}
            assert name == "quadrature_error" or parameters <= set(nonlinearity_laws._VALUES)
