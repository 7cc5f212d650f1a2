"""Mixtures of Gaussians for the coordinates of one neuron."""

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class GaussianMixture:
    """A density on R^q, or one for each of C chains: then all attributes have a leading axis C.

    Attributes
    ----------
    log_weights
        Of K components, shape (K,), normalised.
    means
        Shape (K, q).
    precision_roots
        Upper triangular R, with inverse covariances R^T R, shape (K, q, q).
    """

    log_weights: Tensor
    means: Tensor
    precision_roots: Tensor

    @classmethod
    def of(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> "GaussianMixture":
        """From weights (K,), means (K, q) and covariances (K, q, q)."""
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariances))
        return cls((weights / weights.sum()).log(), means, torch.linalg.cholesky(precision).mT)

    @cached_property
    def _log_norms(self) -> Tensor:
        log_det = self.precision_roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.log_weights + log_det - 0.5 * math.log(2.0 * math.pi) * self.means.shape[-1]

    def log_joint(self, x: Tensor) -> Tensor:
        """Log density of each component at points (..., n, q): (..., n, K)."""
        white = (x.unsqueeze(-3) - self.means.unsqueeze(-2)) @ self.precision_roots.mT  # (..., K, n, q)
        return (self._log_norms[..., None] - 0.5 * (white**2).sum(-1)).mT

    def log_density(self, x: Tensor) -> Tensor:
        """At points (..., n, q): (..., n)."""
        return self.log_joint(x).logsumexp(-1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of each mixture: (..., n, q)."""
        uniform = torch.rand(
            (*self.log_weights.shape[:-1], n, 1),
            generator=generator,
            dtype=self.means.dtype,
            device=self.means.device,
        )
        below = self.log_weights.exp().cumsum(-1)[..., :-1].unsqueeze(-2) < uniform  # (..., n, K - 1)
        chosen = below.sum(-1)  # (..., n)
        means, roots = _pick(self.means, chosen), _pick(self.precision_roots, chosen)
        noise = torch.empty_like(means).normal_(generator=generator)
        return means + torch.linalg.solve_triangular(roots, noise[..., None], upper=True)[..., 0]


def _pick(values: Tensor, chosen: Tensor) -> Tensor:
    """Entries ``chosen`` (..., n) of values (..., K, ...): those of each batch for itself."""
    if chosen.ndim == 1:
        return values[chosen]
    return values[torch.arange(len(chosen), device=chosen.device)[:, None], chosen]
