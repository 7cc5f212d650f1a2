"""Mixtures of Gaussians for the coordinates of a neuron."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Self

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class GaussianMixture:
    """A density on R^q.

    Attributes
    ----------
    weights
        Of K components, shape (K,), summing to 1.
    means
        Shape (K, q).
    roots
        Lower triangular L, with covariances L L^T, shape (K, q, q).
    """

    weights: Tensor
    means: Tensor
    roots: Tensor

    @classmethod
    def of(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> Self:
        """From weights (K,) of any sum, means (K, q) and covariances (K, q, q)."""
        return cls(weights / weights.sum(), means, torch.linalg.cholesky(covariances))

    @classmethod
    def recalled(cls, memory: Mapping[str, Tensor]) -> Self:
        """From the memory of a state."""
        return cls(*(memory[name] for name in _FIELDS))

    @property
    def memory(self) -> dict[str, Tensor]:
        """For the memory of a state."""
        return {name: getattr(self, name) for name in _FIELDS}

    @property
    def covariances(self) -> Tensor:
        """Shape (K, q, q)."""
        return self.roots @ self.roots.mT

    @cached_property
    def _log_norms(self) -> Tensor:
        log_det = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.weights.log() - (log_det + 0.5 * math.log(2.0 * math.pi) * self.means.shape[1])

    @cached_property
    def _inverse_roots(self) -> Tensor:
        one = torch.eye(self.means.shape[1], dtype=self.means.dtype, device=self.means.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.roots, one.expand_as(self.roots), upper=False)
        return inverse

    def squared_distances(self, x: Tensor) -> Tensor:
        """Of points (n, q) from each centre, in units of its covariance: (n, K)."""
        shifts = (self._inverse_roots @ self.means[..., None]).mT  # (K, 1, q)
        white = x @ self._inverse_roots.mT - shifts  # (K, n, q)
        return white.square().sum(-1).mT

    def log_density(self, x: Tensor) -> Tensor:
        """At points (n, q): (n,)."""
        return (self._log_norms - 0.5 * self.squared_distances(x)).logsumexp(1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, (n, q)."""
        like = self.means
        uniform = torch.rand((n, 1), generator=generator, dtype=like.dtype, device=like.device)
        member = (self.weights.cumsum(0)[:-1] < uniform).sum(1)
        noise = torch.randn((n, like.shape[1], 1), generator=generator, dtype=like.dtype, device=like.device)
        points = torch.empty_like(noise[..., 0])
        for k, (mean, root) in enumerate(zip(self.means, self.roots, strict=True)):
            points[member == k] = torch.addmm(mean, noise[member == k, :, 0], root.mT)
        return points


_FIELDS = ("weights", "means", "roots")
