"""The exact law of one neuron under a conjugate kernel, and Markov moves that leave it alone."""

import math
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp

from fltheory.meanfield.fractions import ImposedFractions
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_N_LEAPFROG = 8
_ACCEPTANCE = 0.8
_LONGEST_STEP = 0.6


class LatentLaw(ABC):
    """The density ~ N(g | 0, 1) exp(phi^T Kt phi / 2) of the latent g of z = F g, phi = phi(z).

    Attributes
    ----------
    factor
        F (P, q), with K = F F^T.
    nonlinearity
        phi.
    """

    factor: Array
    nonlinearity: Nonlinearity

    @property
    @abstractmethod
    def conjugate(self) -> Array:
        """Kt, (P, P)."""

    @abstractmethod
    def pull(self, activations: Array) -> Array:
        """Kt phi for each phi (n, P)."""

    def activations(self, latent: Array) -> Array:
        """phi(F g), (n, P)."""
        return np.asarray(self.nonlinearity(latent @ self.factor.T))

    def exponent(self, activations: Array) -> Array:
        """phi^T Kt phi / 2, (n,)."""
        return self._exponent(activations, self.pull(activations))

    def _exponent(self, activations: Array, pull: Array) -> Array:
        return np.asarray(0.5 * np.einsum("np,np->n", pull, activations))

    def log_density(self, latent: Array) -> Array:
        """Relative to log N(0 | 0, 1) without its constant, (n,)."""
        return np.asarray(self.exponent(self.activations(latent)) - 0.5 * (latent**2).sum(1))

    def log_density_and_gradient(self, latent: Array) -> tuple[Array, Array]:
        """The same with its gradient, (n,) and (n, q)."""
        z = latent @ self.factor.T
        phi = np.asarray(self.nonlinearity(z))
        pull = self.pull(phi)
        value = self._exponent(phi, pull) - 0.5 * (latent**2).sum(1)
        return value, (pull * self.nonlinearity.derivative(z)) @ self.factor - latent

    def growth_to(self, exponents: Array, latent: Array) -> float:
        """log Z of another law less that of this one, by neurons (n, q) of the other and its exponents, (n,).

        By neurons of this law, it would come out too large where the other was chosen by what it is on them.
        """
        back = self.exponent(self.activations(latent)) - exponents
        return math.log(len(back)) - float(logsumexp(back))

    @cached_property
    def is_odd(self) -> bool:
        """Whether phi(-z) = -phi(z), so that g and -g are equally likely."""
        z = np.linspace(0.0, 20.0, 81)
        return bool(np.allclose(self.nonlinearity(-z), -self.nonlinearity(z), rtol=1e-12, atol=1e-14))


@frozen(eq=False)
class NeuronLaw(LatentLaw):
    """A readout neuron with its readout integrated out, docs/theory.md (4a): Kt = sigma_a^2 t t^T.

    Attributes
    ----------
    field
        t, (P, m).
    readout_variance
        sigma_a^2.
    """

    factor: Array
    field: Array
    readout_variance: float
    nonlinearity: Nonlinearity

    @property
    def conjugate(self) -> Array:
        return np.asarray(self.readout_variance * self.field @ self.field.T)

    def pull(self, activations: Array) -> Array:
        return np.asarray(self.readout_variance * (activations @ self.field) @ self.field.T)


@frozen(eq=False)
class ImposedLaw(NeuronLaw):
    """The same where codes have imposed shares: constants are added to the exponent, one a code.

    Attributes
    ----------
    fractions
        Of the codes; a neuron with none of them is not drawn.
    offsets
        What is added, (k,).
    """

    fractions: ImposedFractions
    offsets: Array

    def _exponent(self, activations: Array, pull: Array) -> Array:
        known = np.append(self.offsets, -np.inf)  # at -1: none of the codes
        return np.asarray(super()._exponent(activations, pull) + known[self.fractions.members(activations)])

    @property
    def is_odd(self) -> bool:
        """Mirror images may have other shares."""
        return False


@frozen(eq=False)
class HiddenLaw(LatentLaw):
    """A neuron below the last layer, docs/theory.md (4)."""

    factor: Array
    conjugate: Array
    nonlinearity: Nonlinearity

    def pull(self, activations: Array) -> Array:
        return np.asarray(activations @ self.conjugate)


class HamiltonianMoves:
    """Hamiltonian Monte Carlo on many neurons at once, its step adapted to the acceptance."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.step = 0.2

    def __call__(self, law: LatentLaw, latent: Array, n: int = 1) -> Array:
        """``n`` trajectories of each neuron (M, q)."""
        for _ in range(n):
            latent = self._trajectory(law, latent)
        return latent

    def _trajectory(self, law: LatentLaw, latent: Array) -> Array:
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
