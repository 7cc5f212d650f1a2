"""How hard it is for a neuron to change its code while the others stay."""

import math

import numpy as np
from attrs import evolve
from scipy.optimize import brentq
from torch import Tensor

from fltheory.network.moves.gram import FeatureGram
from fltheory.network.readout import ReadoutPosterior
from fltheory.network.target import IntegratedTarget
from fltheory.numerics.validation import Array

_COLDEST, _HOTTEST = 1e-12, 1e6  # temperatures between which is searched, in units of the kernel's


def stiffness(posterior: ReadoutPosterior) -> float:
    """The mean over neurons of <|a|^2> kappa / (2 sigma_a^2), for networks with these features.

    It is the exponent by which a neuron of another code, drawn without regard to the others, is too
    unlikely: kappa = phi^T G_-^{-1} phi, of the Gram matrix of the other neurons, is large where they
    leave no room for it (docs/theory.md, section 8).
    """
    return float(FeatureGram(posterior).couplings().mean())


def temperature_of(target: IntegratedTarget, preactivations: Array, goal: float) -> float:
    """T at which networks with these preactivations, (C, N, P), have stiffness ``goal``.

    Raises
    ------
    ValueError
        If they have it at no temperature.
    """
    phi = target.tensor(np.asarray(target.model.nonlinearity(preactivations)))
    unit = target.readout_posterior(phi).kernel_scale * _largest(phi)

    def excess(log_temperature: float) -> float:
        warm = evolve(target, temperature=unit * math.exp(log_temperature))
        return stiffness(warm.readout_posterior(phi)) - goal

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    if excess(low) < 0.0 or excess(high) > 0.0:
        raise ValueError(f"goal: expected a stiffness that the networks have at some T, got {goal:g}")
    return unit * math.exp(brentq(excess, low, high, xtol=1e-3))


def _largest(features: Tensor) -> float:
    """A bound on the eigenvalues of Phi^T Phi."""
    return float((features**2).sum((-2, -1)).max())
