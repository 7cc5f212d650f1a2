"""Which functions serve which kind of array."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import torch
from numpy.testing import assert_allclose

from fltheory.numerics.namespace import is_torch, namespace, special

SHARED = [
    "tanh",
    "exp",
    "log",
    "sqrt",
    "abs",
    "sign",
    "where",
    "maximum",
    "minimum",
    "zeros_like",
    "ones_like",
]
SHARED_SPECIAL = ["expit", "erf", "erfc", "log_ndtr", "ndtr", "gammaln"]


@pytest.mark.parametrize(
    "z", [np.zeros(3), np.zeros((2, 2), np.float32), np.arange(3), np.float64(1.0), np.float32(1.0), 1.0, 2]
)
def test_numpy_arrays_and_numbers_are_served_by_numpy(z):
    assert not is_torch(z)
    assert_allclose(namespace(z).tanh(z), np.tanh(z))
    assert special(z) is scipy.special


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tensors_are_served_by_torch(dtype):
    z = torch.linspace(-2, 2, 5, dtype=dtype, requires_grad=True)
    assert is_torch(z)
    assert torch.equal(namespace(z).tanh(z), torch.tanh(z))
    assert special(z) is torch.special


@pytest.mark.parametrize("name", SHARED)
def test_functions_a_formula_may_use_are_in_both(name):
    assert callable(getattr(namespace(np.zeros(1)), name))
    assert callable(getattr(namespace(torch.zeros(1)), name))


@pytest.mark.parametrize("name", SHARED_SPECIAL)
def test_special_functions_agree(name):
    z = np.linspace(0.1, 3, 7)
    expected = getattr(special(z), name)(z)
    assert_allclose(getattr(special(torch.tensor(z)), name)(torch.tensor(z)).numpy(), expected, rtol=1e-6)


REFUSED = {
    "string": "1",
    "none": None,
    "list": [1.0],
    "bool": True,
    "complex": 1j,
    "complex array": np.ones(2, complex),
    "bool array": np.ones(2, bool),
    "object array": np.array([1.0, None]),
    "string array": np.array(["1"]),
    "complex tensor": torch.ones(2, dtype=torch.complex128),
    "bool tensor": torch.ones(2, dtype=torch.bool),
    "class": np.ndarray,
}


@pytest.mark.parametrize("function", [namespace, special])
@pytest.mark.parametrize("z", REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_by_name(function, z):
    with pytest.raises(TypeError, match="^z: expected a real numpy array, torch tensor or number, got "):
        function(z)


def test_fractions_are_numbers():
    assert namespace(Fraction(1, 2)).tanh(0.5) == np.tanh(0.5)
