"""What the weights were before: the prior and its scaling with the data set."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from attrs import field, frozen

from fltheory.numerics.validation import check_choice, check_integer, check_real, check_sequence, checked


class Prior(ABC):
    """Independent Gaussian weights of zero mean, with a variance of their own in each layer.

    A subclass must implement ``weight_variances`` and ``effective_readout_variance``.
    """

    @abstractmethod
    def weight_variances(self, n_hidden_layers: int) -> tuple[float, ...]:
        """sigma_1^2 ... sigma_L^2, the variance of one weight of each hidden layer."""

    @abstractmethod
    def effective_readout_variance(
        self, n_samples: int, n_hidden_layers: int, *, is_linear: bool, is_lazy: bool
    ) -> float:
        """sigma_a^2, the variance of one readout weight for this many training inputs."""


def _check_variances(name: str, value: object) -> float | tuple[float, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return check_sequence(name, value, check_real, minimum=0.0, exclusive=True)
    return check_real(name, value, minimum=0.0, exclusive=True)


def _check_scaling(name: str, value: object) -> str | float:
    if isinstance(value, str):
        return str(check_choice(name, value, ("auto", "none")))
    return check_real(name, value)


@frozen
class GaussianPrior(Prior):
    """The standard prior.

    Parameters
    ----------
    weight_variance
        sigma_l^2, one number for all hidden layers or a sequence of one a layer.
    readout_variance
        s_a, the readout variance before scaling.
    scaling
        How sigma_a^2 shrinks with the number P of training inputs (docs/theory.md, section 1):
        "auto" is s_a / P for nonlinear and s_a / P^(1/L) for linear networks, s_a when lazy;
        "none" is s_a; a number e is s_a / P^e.
    """

    weight_variance: float | tuple[float, ...] = field(default=1.0, converter=checked(_check_variances))
    readout_variance: float = field(default=1.0, converter=checked(check_real, minimum=0.0, exclusive=True))
    scaling: str | float = field(default="auto", converter=checked(_check_scaling))

    def weight_variances(self, n_hidden_layers: int) -> tuple[float, ...]:
        n_hidden_layers = check_integer("n_hidden_layers", n_hidden_layers)
        if not isinstance(self.weight_variance, tuple):
            return (self.weight_variance,) * n_hidden_layers
        if len(self.weight_variance) != n_hidden_layers:
            raise ValueError(
                f"weight_variance: expected one variance for each of {n_hidden_layers} hidden layers, "
                f"got {len(self.weight_variance)}"
            )
        return self.weight_variance

    def effective_readout_variance(
        self, n_samples: int, n_hidden_layers: int, *, is_linear: bool, is_lazy: bool
    ) -> float:
        n_samples = check_integer("n_samples", n_samples)
        n_hidden_layers = check_integer("n_hidden_layers", n_hidden_layers)
        if self.scaling == "none" or (self.scaling == "auto" and is_lazy):
            return self.readout_variance
        if self.scaling == "auto":
            exponent = 1.0 / n_hidden_layers if is_linear else 1.0
        else:
            exponent = float(self.scaling)
        with np.errstate(all="ignore"):
            variance = float(self.readout_variance / np.float64(n_samples) ** exponent)
        if not 0.0 < variance < math.inf:
            raise ValueError(
                f"scaling: expected an exponent that leaves a positive readout variance at P = {n_samples}, "
                f"got {self.scaling}"
            )
        return variance
