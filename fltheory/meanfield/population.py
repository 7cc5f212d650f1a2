"""Neurons of equal weight that follow an exact law as it changes, in clusters that they jump between."""

import numpy as np

from fltheory.meanfield.clusters import GaussianClusters, cluster_centres, fit_clusters, nearest
from fltheory.meanfield.law import HamiltonianMoves, LatentLaw
from fltheory.numerics.validation import Array

_MULTIPLIED = 2  # times as many neurons
_FEWEST_SWEEPS, _MOST_SWEEPS = 3, 12  # trajectories of each neuron in one round,
_MEMORY = 0.15  # until this correlation is left of where neurons are inside their clusters
_N_JUMPS, _RENEWAL = 2, 0.3  # between clusters, in one round
_PER_CLUSTER, _MOST_CLUSTERS = 40, 24


class Population:
    """Neurons that are moved under one law after another.

    Attributes
    ----------
    latent
        g, (M, q).
    rng
        What moves and resampling are drawn with.
    """

    def __init__(self, latent: Array, rng: np.random.Generator) -> None:
        self.latent, self.rng = latent, rng
        self._moves = HamiltonianMoves(rng)
        self._most_sweeps = _MOST_SWEEPS
        self._clusters: GaussianClusters | None = None
        self._centres: Array | None = None  # of the clusters' activations, (B, P)

    @property
    def has_clusters(self) -> bool:
        """Whether there are clusters to jump between."""
        return self._clusters is not None

    def resample(self, weights: Array, latent: Array | None = None) -> None:
        """Neurons of equal weight for those of ``weights`` (n,): of these, or of ``latent`` (n, q)."""
        pool, size = self.latent if latent is None else latent, len(self.latent)
        positions = (self.rng.random() + np.arange(size)) / size
        chosen = np.searchsorted(np.cumsum(weights), positions)
        self.latent = pool[np.minimum(chosen, len(pool) - 1)]

    def move(self, law: LatentLaw) -> None:
        """Trajectories until they have mixed inside clusters, or long enough; then jumps."""
        before = law.activations(self.latent)
        n_sweeps = 0
        while n_sweeps == 0 or (n_sweeps < self._most_sweeps and self._remembers(law, before)):
            self.latent = self._moves(law, self.latent, _FEWEST_SWEEPS)
            n_sweeps += _FEWEST_SWEEPS
        if self._clusters is not None:
            for _ in range(_N_JUMPS):
                self.latent, _ = self._clusters.jump(law, self.latent, self.rng, renewal=_RENEWAL)
        if law.is_odd:  # a neuron and its mirror image are equally likely
            self.latent = self.latent * self.rng.choice([-1.0, 1.0], (len(self.latent), 1))

    def rounds(self, law: LatentLaw, n: int) -> Array:
        """Neurons of this law, near which they are: of ``n`` moves with new clusters, together."""
        self.fit_clusters(law)
        kept = []
        for _ in range(n):
            self.move(law)
            kept.append(self.latent)
        return np.concatenate(kept)

    def hurry(self) -> None:
        """Be content with the fewest sweeps from now on: what is left to do, jumps do."""
        self._most_sweeps = _FEWEST_SWEEPS

    def multiply(self, law: LatentLaw) -> None:
        """More neurons, which move until copies are independent inside their clusters."""
        self.latent = np.repeat(self.latent, _MULTIPLIED, axis=0)
        self.fit_clusters(law)
        for _ in range(_MULTIPLIED):
            self.move(law)

    def fit_clusters(self, law: LatentLaw) -> None:
        """Clusters of the neurons where they are now, for the jumps from now on."""
        latent = np.concatenate([self.latent, -self.latent]) if law.is_odd else self.latent
        activations = law.activations(latent)
        n_clusters = max(1, min(len(latent) // _PER_CLUSTER, _MOST_CLUSTERS))
        self._centres = cluster_centres(activations, n_clusters, self.rng)
        self._clusters = fit_clusters(law, latent, nearest(activations, self._centres))

    def _remembers(self, law: LatentLaw, before: Array) -> bool:
        """Whether activations (M, P) inside clusters still go with those before."""
        if self._centres is None:
            return False
        middle = self._centres[nearest(before, self._centres)]
        before, after = before - middle, law.activations(self.latent) - middle
        scale = np.sqrt((before**2).sum(0) * (after**2).sum(0))
        return bool(np.median((before * after).sum(0) / np.maximum(scale, 1e-300)) > _MEMORY)
