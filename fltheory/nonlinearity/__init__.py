"""What a neuron computes: the nonlinearity phi, one formula a class."""

from fltheory.nonlinearity.base import Nonlinearity as Nonlinearity
from fltheory.nonlinearity.stock import (
    GELU as GELU,
    Erf as Erf,
    LeakyReLU as LeakyReLU,
    Linear as Linear,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    Softplus as Softplus,
    Tanh as Tanh,
)
