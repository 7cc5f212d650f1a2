"""The readout of one neuron, given its features and all other neurons."""

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.gram import FeatureGram

_WIDEN = 1.15  # of proposed readouts, over the width that linear response gives


@frozen(eq=False)
class Others:
    """What a neuron sees of all others, with its readout a in units of sigma_a (docs/theory.md, (18)).

    A neuron with features phi and its readout have the density, apart from the prior of the features,

        exp( a^T U^T phi - |a|^2 (1 + kappa) / 2 ),    U = G_-^{-1} Y / sqrt(s),   kappa = phi^T G_-^{-1} phi

    with G_- of the others alone; integrated over a, this is the evidence.

    Attributes
    ----------
    solved
        G_-^{-1} and U, shape (C, P, P + m).
    """

    solved: Tensor

    @classmethod
    def than(cls, neurons: int | Sequence[int], gram: FeatureGram) -> "Others":
        """Those that are left without some neurons."""
        phi = gram.features[:, torch.as_tensor(neurons, device=gram.features.device).reshape(-1)]
        u = phi @ gram.solved  # (C, n, P + m)
        own = u[..., : phi.shape[2]]
        left = torch.eye(phi.shape[1], dtype=phi.dtype, device=phi.device) - own @ phi.mT
        return cls(torch.baddbmm(gram.solved, own.mT, torch.linalg.solve_ex(left, u).result))

    @property
    def inverse(self) -> Tensor:
        """G_-^{-1}, shape (C, P, P)."""
        return self.solved[..., : self.solved.shape[1]]

    @property
    def pull(self) -> Tensor:
        """U, shape (C, P, m)."""
        return self.solved[..., self.solved.shape[1] :]

    def means(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """<a> (C, n, m) given features (C, n, P) or (n, P), and its precision 1 + kappa, (C, n, 1)."""
        solved, p = phi @ self.solved, phi.shape[-1]
        precision = 1.0 + torch.linalg.vecdot(solved[..., :p], phi)[..., None]
        return solved[..., p:] / precision, precision

    def draw(self, phi: Tensor, generator: torch.Generator) -> Tensor:
        """Readouts (C, n, m) from their exact law given features (C, n, P)."""
        mean, precision = self.means(phi)
        return torch.addcmul(mean, _noise(mean, generator), precision.rsqrt())

    def log_density(self, a: Tensor, phi: Tensor) -> Tensor:
        """Of readouts (C, n, m) given features (C, n, P): (C, n)."""
        mean, precision = self.means(phi)
        log_norm = 0.5 * a.shape[-1] * (precision[..., 0].log() - math.log(2.0 * math.pi))
        return log_norm - 0.5 * (precision * (a - mean).square()).sum(-1)


@frozen(eq=False)
class ReadoutMixture:
    """Gaussians for the readout of a neuron, one mixture a chain.

    Attributes
    ----------
    weights
        Of K components, the same for all chains, (K,).
    means, roots
        (C, K, m), and Cholesky factors of the covariances, (C, K, m, m).
    """

    weights: Tensor
    means: Tensor
    roots: Tensor

    @classmethod
    def of(cls, weights: Tensor, activations: Tensor, responses: Tensor, others: Others) -> "ReadoutMixture":
        """From mean features (K, P) of each component and roots (P, K q) of their covariances."""
        means, precision = others.means(activations)  # (C, K, m), (C, K, 1)
        spread = others.pull.mT @ responses  # (C, m, K q)
        spread = spread.reshape(*spread.shape[:2], len(weights), -1).transpose(1, 2)  # (C, K, m, q)
        covariances = spread @ spread.mT / precision[..., None]
        covariances.diagonal(dim1=2, dim2=3).add_(1.0)
        factor, _ = torch.linalg.cholesky_ex(torch.nan_to_num(covariances, nan=1.0))
        return cls(weights, means, factor * (_WIDEN * precision.rsqrt()[..., None]))

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """k readouts of each chain, (C, k, m)."""
        n_chains, _, m = self.means.shape
        like = self.means
        uniform = torch.rand((n_chains, k, 1), generator=generator, dtype=like.dtype, device=like.device)
        member = (self.weights.cumsum(0)[:-1] < uniform).sum(-1)  # (C, k)
        chains = torch.arange(n_chains, device=like.device)[:, None]
        noise = _noise(like.new_empty(n_chains, k, m), generator)
        return self.means[chains, member] + (self.roots[chains, member] @ noise[..., None])[..., 0]

    def log_joint(self, a: Tensor) -> Tensor:
        """Log density of each component at readouts (C, n, m): (C, n, K)."""
        shifted = (a[:, None] - self.means[:, :, None]).mT  # (C, K, m, n)
        white = torch.linalg.solve_triangular(self.roots, shifted, upper=False)
        log_det = self.roots.diagonal(dim1=2, dim2=3).log().sum(-1)
        log_norm = self.weights.log() - log_det - 0.5 * a.shape[-1] * math.log(2.0 * math.pi)  # (C, K)
        log_joint: Tensor = log_norm[..., None] - 0.5 * white.square().sum(2)
        return log_joint.mT


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)
