"""What code moves learn in warm-up: Gaussians for neurons of codes that the theory does not know."""

import math

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.mixture import GaussianMixture
from fltheory.network.moves.neurons import Neurons
from fltheory.sampler.blocks import Memory

_MOST_CODES = 8
_WEIGHT = 0.02  # of each component
_FAR = 30.0  # of the squared distance, beyond what chance allows, from where a neuron is outside


@frozen(eq=False)
class Adaptation:
    """Fits to neurons far from all of the theory's Gaussians: one component a code.

    Chains learn together. While they are hot, what they learn is soon replaced; a component stays while
    no neuron of its code is stuck any more, as it is what let them out.

    Attributes
    ----------
    theory
        The mixture to start from.
    shares
        Weights of the inputs in the mean activation of each group, (P, G).
    threshold
        Mean activation above which a neuron is active on a group.
    """

    theory: GaussianMixture
    neurons: Neurons
    shares: Tensor
    threshold: float

    def start(self) -> Memory:
        """Nothing but the theory."""
        none = torch.zeros((0, self.shares.shape[1]), dtype=torch.bool, device=self.shares.device)
        n_calls = torch.zeros((), dtype=torch.int64, device=self.shares.device)
        return {**self.theory.memory, "codes": none, "n_calls": n_calls}

    def learned(self, memory: Memory, x: Tensor) -> Memory:
        """From neurons at coordinates (C, N, q)."""
        stuck = self._outside(x.reshape(-1, x.shape[-1]))
        codes, member, counts = torch.unique(
            self.codes(stuck), dim=0, return_inverse=True, return_counts=True
        )
        # Single neurons count: one of a code that is never proposed would never leave it.
        common = counts.argsort(descending=True)[:_MOST_CODES]
        fits = [self._fit(stuck[member == k]) for k in common]
        return self._joined(memory, codes[common], fits)

    def codes(self, x: Tensor) -> Tensor:
        """On which groups neurons at coordinates (n, q) are active: (n, G)."""
        return self.neurons.features(x) @ self.shares > self.threshold

    def _outside(self, x: Tensor) -> Tensor:
        """Those of the coordinates (n, q) that no component of the theory explains."""
        q = x.shape[1]
        nearest = self.theory.squared_distances(x).amin(1)
        return x[nearest > q + 4.0 * math.sqrt(2.0 * q) + _FAR]

    def _fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (q,) and covariance (q, q) of a few coordinates (n, q), shrunk towards the theory's."""
        mean, q = x.mean(0), x.shape[1]
        scatter = (x - mean).mT @ (x - mean)
        usual = torch.einsum("k,kij->ij", self.theory.weights, self.theory.covariances)
        return mean, (scatter + q * usual) / (len(x) + q)

    def _joined(self, memory: Memory, codes: Tensor, fits: list[tuple[Tensor, Tensor]]) -> Memory:
        """The theory, new components and those remembered of other codes, the oldest forgotten."""
        past, n_theory = GaussianMixture.recalled(memory), len(self.theory.weights)
        is_new = (memory["codes"][:, None] == codes[None]).all(2).any(1)
        kept = torch.nonzero(~is_new)[:, 0]
        means = torch.cat([*(mean[None] for mean, _ in fits), past.means[n_theory:][kept]])[:_MOST_CODES]
        covariances = [*(c[None] for _, c in fits), past.covariances[n_theory:][kept]]
        weights = torch.full_like(means[:, 0], _WEIGHT)
        mixture = GaussianMixture.of(
            torch.cat([(1.0 - weights.sum()) * self.theory.weights, weights]),
            torch.cat([self.theory.means, means]),
            torch.cat([self.theory.covariances, torch.cat(covariances)[:_MOST_CODES]]),
        )
        return {**mixture.memory, "codes": torch.cat([codes, memory["codes"][kept]])[:_MOST_CODES]}
