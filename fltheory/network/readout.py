"""The readout given the features: Gaussian at any temperature, 0 and infinity included."""

import math
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor

from fltheory.sampler.base import standard_normal


def per_chain(temperature: float | Tensor) -> float | Tensor:
    """One number, or one a chain as (C, 1, 1)."""
    return temperature[:, None, None] if isinstance(temperature, Tensor) else temperature


@frozen(eq=False)
class ReadoutPosterior:
    """Bayesian linear regression of Y on the features, one a chain (docs/theory.md, section 8).

    With f = g Phi^T a, prior a ~ N(0, sigma_a^2) and noise T, the outputs have covariance
    C = sigma_a^2 g^2 Phi^T Phi + T. Everything follows from C and V = C^{-1} Y. At T = 0 the features
    must be linearly independent; at T = infinity, C^{-1} is 0.

    Attributes
    ----------
    features
        Phi, shape (C, N, P).
    targets
        Y, shape (C, P, m).
    temperature, variance, scale
        T, one for all or one a chain (C,), sigma_a^2 and g: 1/N, lazy 1/sqrt(N).
    """

    features: Tensor
    targets: Tensor
    temperature: float | Tensor
    variance: float
    scale: float

    @property
    def kernel_scale(self) -> float:
        """s = sigma_a^2 g^2: the prior of the outputs has covariance s Phi^T Phi."""
        return self.variance * self.scale**2

    @property
    def _is_prior(self) -> bool:
        return not isinstance(self.temperature, Tensor) and math.isinf(self.temperature)

    @cached_property
    def _cholesky(self) -> tuple[Tensor, Tensor]:
        """The Cholesky factor of C, shape (C, P, P), and whether C is regular to rounding, shape (C,).

        The factor is NaN where it is not: solving with a zero pivot would raise for all chains.
        """
        phi = self.features
        identity = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device)
        noise = (per_chain(self.temperature) * identity).expand(len(phi), -1, -1)
        covariance = torch.baddbmm(noise, phi.mT, phi, alpha=self.kernel_scale)
        factor, failure = torch.linalg.cholesky_ex(covariance)
        pivots = factor.detach().diagonal(dim1=-2, dim2=-1) ** 2
        rounding = phi.shape[-1] * torch.finfo(phi.dtype).eps * pivots.amax(-1)
        is_regular = (failure == 0) & (pivots.amin(-1) > rounding)
        return torch.where(is_regular[:, None, None], factor, math.nan), is_regular

    def _solve(self, right: Tensor) -> Tensor:
        """C^{-1} b for b of shape (C, P, k)."""
        return torch.zeros_like(right) if self._is_prior else torch.cholesky_solve(right, self._cholesky[0])

    @cached_property
    def solution(self) -> Tensor:
        """V = C^{-1} Y, shape (C, P, m)."""
        return self._solve(self.targets)

    @property
    def log_evidence(self) -> Tensor:
        """-1/2 tr Y^T C^{-1} Y - (m/2) log det C, shape (C,): -inf where C is singular."""
        if self._is_prior:
            return torch.zeros_like(self.features[:, 0, 0])
        factor, is_regular = self._cholesky
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        misfit = 0.5 * (self.targets * self.solution).sum((-2, -1))
        value = -misfit - self.targets.shape[-1] * half_log_det
        return torch.where(is_regular, value, -math.inf)

    @property
    def evidence_slope(self) -> Tensor:
        """The gradient of ``log_evidence`` in the features, s Phi (V V^T - m C^{-1}), shape (C, N, P)."""
        if self._is_prior:
            return torch.zeros_like(self.features)
        v, m, scale = self.solution, self.targets.shape[-1], self.kernel_scale
        inverse = torch.cholesky_inverse(self._cholesky[0])
        return self.features @ torch.baddbmm(inverse, v, v.mT, beta=-m * scale, alpha=scale)

    @property
    def mean(self) -> Tensor:
        """<a> = sigma_a^2 g Phi V, shape (C, N, m); at T = 0 the solution of least norm."""
        return self._lift(self.solution)

    def _lift(self, v: Tensor) -> Tensor:
        """sigma_a^2 g Phi v: from fields (C, P, m) to readouts (C, N, m)."""
        return self.variance * self.scale * (self.features @ v)

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (C, n, m) and variance (C, n), the same for each output, at new features (C, N, n)."""
        s = self.kernel_scale
        cross = s * (self.features.mT @ features)  # (C, P, n)
        explained = (cross * self._solve(cross)).sum(-2)
        variance = s * (features**2).sum(-2) - explained
        return cross.mT @ self.solution, variance.clamp(min=0.0)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Exact draws of the readouts, shape (C, N, m), by Matheron's rule: a prior draw, corrected.

        At T = 0 the correction is the least-norm step onto Y = f(a), which leaves the draw's
        fluctuation in the null space; repeated, it brings the training error down to rounding.
        """
        n_chains, width, _ = self.features.shape
        a = torch.empty(n_chains, width, self.targets.shape[-1]).to(self.features)
        a = math.sqrt(self.variance) * standard_normal(a, generator)
        noise = 0.0 if self._is_prior else per_chain(self.temperature) ** 0.5
        a = a + self._correction(a, noise * standard_normal(self.targets, generator))
        is_exact = not isinstance(self.temperature, Tensor) and self.temperature == 0.0
        for _ in range(2 if is_exact else 0):
            a = a + self._correction(a, torch.zeros_like(self.targets))
        return a

    def _correction(self, a: Tensor, noise: Tensor) -> Tensor:
        return self._lift(self._solve(self.targets - self.scale * (self.features.mT @ a) - noise))
