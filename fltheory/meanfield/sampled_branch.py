"""A branch of neurons that EP cannot hold, by exact neurons: docs/theory.md (10s).

A soft branch with few neurons may have no fixed point of EP of its own: each start ends in another
branch. Frozen draws with their weights describe it at any t near that at which it was found.
"""

import math

import numpy as np
from attrs import frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.branches import activity_codes
from fltheory.meanfield.clusters import GaussianClusters, fit_clusters
from fltheory.meanfield.ep import BranchMoments
from fltheory.meanfield.law import HamiltonianMoves, NeuronLaw
from fltheory.meanfield.sample_dual import exponent
from fltheory.numerics.validation import Array, Booleans, Integers

_N_CHAINS, _N_SETTLING, _N_KEPT = 1024, 20, 4  # exact neurons; trajectories before, and between, those kept
_APART = 3  # trajectories between those that are kept
_N_BRIDGE = 40  # iterations of the bridge
_WORST_OVERLAP = 0.02  # of the Gaussian's draws with the exact neurons, below which log Z is not known


@frozen(eq=False)
class CodeRegion:
    """Neurons of one code.

    Attributes
    ----------
    groups, threshold
        Of inputs (P,), and the mean activation on a group from which it counts as active.
    code
        (R,).
    """

    groups: Integers
    threshold: float
    code: Booleans

    def contains(self, activations: Array) -> Booleans:
        """Which neurons, or branches, with (mean) phi (n, P), are inside, (n,)."""
        return np.asarray((activity_codes(activations, self.groups, self.threshold) == self.code).all(1))


@frozen(eq=False)
class SampledBranch:
    """Frozen neurons of one branch, to be weighted at any t.

    Attributes
    ----------
    region
        The code, of all whose neurons it stands for.
    latent, activations
        g (n, q) and phi(F g), (n, P).
    drawn_at
        sigma_a^2 |t_0^T phi|^2 / 2 of each, for the t_0 that it was drawn at, (n,).
    log_partition
        log Z of the branch at t_0.
    readout_variance
        sigma_a^2.
    """

    region: CodeRegion
    latent: Array
    activations: Array
    drawn_at: Array
    log_partition: float
    readout_variance: float

    @classmethod
    def around(
        cls, latent: Array, region: CodeRegion, law: NeuronLaw, rng: np.random.Generator
    ) -> "SampledBranch | None":
        """The branch that neurons of a region (n, q) belong to; None if its log Z cannot be told.

        Markov chains that do not leave the region settle on the exact law there; log Z is that of a
        Gaussian fitted to half of them, by a bridge to the others.
        """
        moves, kept = HamiltonianMoves(rng), list[Array]()
        latent = latent[rng.integers(len(latent), size=_N_CHAINS)]
        for step in range(_N_SETTLING + _APART * _N_KEPT):
            moved = moves(law, latent)
            latent = np.where(region.contains(law.activations(moved))[:, None], moved, latent)
            if step >= _N_SETTLING and (step - _N_SETTLING) % _APART == 0:
                kept.append(latent)
        drawn = np.stack(kept, axis=1).reshape(-1, latent.shape[1])  # those of one chain side by side
        fitted_to, others = np.split(drawn, 2)
        gaussian = fit_clusters(law, fitted_to, np.zeros(len(fitted_to), dtype=np.int64))
        log_partition = _bridge(law, region, others, gaussian, rng)
        if log_partition is None:
            return None
        activations = law.activations(drawn)
        drawn_at = exponent(activations, law.field, law.readout_variance)
        return cls(region, drawn, activations, drawn_at, log_partition, law.readout_variance)

    def moments(self, field: Array) -> BranchMoments:
        """The branch at a dual field, as EP would describe it."""
        log_weights = exponent(self.activations, field, self.readout_variance) - self.drawn_at
        weights = softmax(log_weights)
        growth = logsumexp(log_weights) - math.log(len(weights))
        mean_readouts = self.readout_variance * self.activations @ field  # given z, (n, m)
        scale, m = math.sqrt(self.readout_variance), field.shape[1]
        latent = np.concatenate([self.latent, mean_readouts / scale], axis=1)
        mean, activation = weights @ latent, weights @ self.activations
        spread, deviation = latent - mean, self.activations - activation
        covariance = (spread.T * weights) @ spread
        covariance[-m:, -m:] += np.eye(m)  # of a given z
        together = (deviation.T * weights) @ spread
        loadings = np.linalg.solve(covariance, together.T).T
        variance = weights @ deviation**2
        return BranchMoments(
            log_partition=np.array([self.log_partition + growth]),
            change=np.zeros(1),
            proper=np.ones(1, dtype=bool),
            latent_mean=mean[None],
            latent_covariance=covariance[None],
            latent_root=np.linalg.cholesky(covariance)[None],
            readout=scale * mean[None, -m:],
            readout_covariance=self.readout_variance * covariance[None, -m:, -m:],
            activations=activation[None],
            activation_variance=variance[None],
            loadings=loadings[None],
            unexplained=np.maximum(variance - (loadings * together).sum(1), 0.0)[None],
            outputs=(self.activations.T @ (weights[:, None] * mean_readouts))[None],
        )


def _bridge(
    law: NeuronLaw, region: CodeRegion, exact: Array, gaussian: GaussianClusters, rng: np.random.Generator
) -> float | None:
    """log Z of the law inside a region, from its neurons (n, q) and as many of a Gaussian: (10s).

    None where the two do not overlap.
    """
    drawn = gaussian.draw(len(exact), rng)
    inside = region.contains(law.activations(drawn))
    there = np.where(inside, law.log_density(drawn) - gaussian.log_density(drawn), -np.inf)
    here = law.log_density(exact) - gaussian.log_density(exact)
    log_partition = float(np.median(here))
    for _ in range(_N_BRIDGE):
        over = logsumexp(there - np.logaddexp(there, log_partition))
        under = logsumexp(-np.logaddexp(here, log_partition))
        log_partition = float(over - under)
    overlap = float(np.mean(np.exp(there - np.logaddexp(there, log_partition))))
    return log_partition if overlap > _WORST_OVERLAP else None
