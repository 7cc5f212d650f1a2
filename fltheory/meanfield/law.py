"""The exact law of one readout neuron at a given dual field, and Markov moves that leave it alone.

With the readout integrated out, docs/theory.md (4a), the latent g of z = F g has the density
pi_t(g) ~ N(g | 0, 1) exp(sigma_a^2 |t^T phi(F g)|^2 / 2).
"""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_N_LEAPFROG = 8
_ACCEPTANCE = 0.8
_LONGEST_STEP = 0.6


@frozen(eq=False)
class NeuronLaw:
    """pi_t for n neurons at a time.

    Attributes
    ----------
    factor
        F (P, q), with K = F F^T.
    field
        t, (P, m).
    readout_variance
        sigma_a^2.
    """

    factor: Array
    field: Array
    readout_variance: float
    nonlinearity: Nonlinearity

    def activations(self, latent: Array) -> Array:
        """phi(F g), (n, P)."""
        return np.asarray(self.nonlinearity(latent @ self.factor.T))

    def log_density(self, latent: Array) -> Array:
        """log pi_t(g), relative to log N(0 | 0, 1) without its constant, (n,)."""
        drive = self.activations(latent) @ self.field
        return np.asarray(0.5 * self.readout_variance * (drive**2).sum(1) - 0.5 * (latent**2).sum(1))

    def log_density_and_gradient(self, latent: Array) -> tuple[Array, Array]:
        """The same with its gradient, (n,) and (n, q)."""
        z = latent @ self.factor.T
        drive = self.nonlinearity(z) @ self.field
        value = 0.5 * self.readout_variance * (drive**2).sum(1) - 0.5 * (latent**2).sum(1)
        pull = self.readout_variance * (drive @ self.field.T) * self.nonlinearity.derivative(z)
        return value, pull @ self.factor - latent

    @cached_property
    def is_odd(self) -> bool:
        """Whether phi(-z) = -phi(z), so that g and -g are equally likely."""
        z = np.linspace(0.0, 20.0, 81)
        return bool(np.allclose(self.nonlinearity(-z), -self.nonlinearity(z), rtol=1e-12, atol=1e-14))


class HamiltonianMoves:
    """Hamiltonian Monte Carlo on many neurons at once, its step adapted to the acceptance."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.step = 0.2

    def __call__(self, law: NeuronLaw, latent: Array, n: int = 1) -> Array:
        """``n`` trajectories of each neuron (M, q)."""
        for _ in range(n):
            latent = self._trajectory(law, latent)
        return latent

    def _trajectory(self, law: NeuronLaw, latent: Array) -> Array:
        momentum = self.rng.standard_normal(latent.shape)
        step = self.step * self.rng.uniform(0.7, 1.3, (len(latent), 1))
        position = latent
        value, gradient = law.log_density_and_gradient(position)
        energy = value - 0.5 * (momentum**2).sum(1)
        for _ in range(_N_LEAPFROG):
            momentum = momentum + 0.5 * step * gradient
            position = position + step * momentum
            value, gradient = law.log_density_and_gradient(position)
            momentum = momentum + 0.5 * step * gradient
        change = value - 0.5 * (momentum**2).sum(1) - energy
        accepted = np.log(self.rng.random(len(change))) < change
        self.step = min(self.step * math.exp(0.5 * (accepted.mean() - _ACCEPTANCE)), _LONGEST_STEP)
        return np.where(accepted[:, None], position, latent)
