"""Single neurons integrated exactly, for the tests of finite width."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

import fltheory as flt
from fltheory.meanfield.reweighting import WeightedNeurons

K = np.array([[1.3, 0.39], [0.39, 1.56]])


class ExactNeurons:
    """One hidden layer with K_0 = F F^T of rank two: (5) solved on a grid in the latent g, z = F g."""

    def __init__(
        self,
        phi: flt.Nonlinearity,
        targets: ArrayLike,
        *,
        noise: float,
        readout_variance: float,
        factor: np.ndarray | None = None,
        half_width: float = 9.0,
        n_nodes: int = 181,
    ) -> None:
        axis = np.linspace(-half_width, half_width, n_nodes)
        self.latent = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        self.z = self.latent @ (np.linalg.cholesky(K) if factor is None else factor).T
        self.phi, self.noise, self.readout_variance = phi, noise, readout_variance
        self.activations = phi(self.z)
        self.targets = np.reshape(targets, (self.z.shape[1], -1)).astype(float)
        start = self.targets / (noise + readout_variance * self.kernel(0 * self.targets).trace())
        found = optimize.root(lambda t: self.gap(t).ravel(), start.ravel(), tol=1e-12)
        self.field = found.x.reshape(self.targets.shape)
        assert np.abs(self.gap(self.field)).max() < 1e-8

    def weights(self, field: np.ndarray) -> np.ndarray:
        drive = self.activations @ field.reshape(self.targets.shape)
        exponent = 0.5 * self.readout_variance * (drive**2).sum(1) - 0.5 * (self.latent**2).sum(1)
        weights = np.exp(exponent - exponent.max())
        return weights / weights.sum()

    def kernel(self, field: np.ndarray) -> np.ndarray:
        return self.activations.T @ (self.weights(field)[:, None] * self.activations)

    def gap(self, field: np.ndarray) -> np.ndarray:
        t = field.reshape(self.targets.shape)
        return self.targets - self.noise * t - self.readout_variance * self.kernel(t) @ t

    @property
    def action(self) -> float:
        drive = self.activations @ self.field
        prior = np.exp(-0.5 * (self.latent**2).sum(1))
        tilted = prior * np.exp(0.5 * self.readout_variance * (drive**2).sum(1))
        value = math.log(tilted.sum() / prior.sum()) + 0.5 * self.noise * (self.field**2).sum()
        return value - float((self.field * self.targets).sum())

    @property
    def neurons(self) -> WeightedNeurons:
        return weighted(
            self.z, self.weights(self.field), self.phi, self.field, self.noise, self.readout_variance
        )


def weighted(
    z: np.ndarray,
    weights: np.ndarray,
    phi: flt.Nonlinearity,
    field: np.ndarray,
    noise: float,
    readout_variance: float,
    member: np.ndarray | None = None,
) -> WeightedNeurons:
    groups = np.arange(z.shape[1]) if member is None else member
    return WeightedNeurons(z, weights, phi, field, noise, readout_variance, groups)
