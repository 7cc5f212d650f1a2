"""The readout integrated out, one neuron after another: how the posterior sees a neuron given the others."""

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Evidence:
    """What the posterior makes of features: -tr Y^T G^{-1} Y / (2 s) - (m / 2) log det G, G = Phi^T Phi + T / s.

    Attributes
    ----------
    targets
        Y, shape (C, P, m).
    kernel_scale
        s = sigma_a^2 / N^2 (lazy sigma_a^2 / N).
    ridge
        lambda = T / s, shape (C,); infinity is the prior.
    """

    targets: Tensor
    kernel_scale: float
    ridge: Tensor


class FeatureGram:
    """G, its inverse and V = G^{-1} Y: they follow the features of C chains.

    Attributes
    ----------
    features
        Phi, shape (C, N, P).
    inverse, solution
        G^{-1} (C, P, P) and V (C, P, m): 0 where T is infinite, NaN where G is singular.
    """

    def __init__(self, features: Tensor, evidence: Evidence) -> None:
        self.evidence = evidence
        self.features = features.clone()
        ridge = torch.where(evidence.ridge.isinf(), 1.0, evidence.ridge)
        identity = torch.eye(features.shape[-1], dtype=features.dtype, device=features.device)
        self._gram = features.mT @ features + ridge[:, None, None] * identity
        self._invert()

    def exchange(self, neurons: Sequence[int], features: Tensor) -> None:
        """Put features (C, n, P) in the place of those of ``neurons``, n different ones."""
        old = self.features[:, neurons]
        self._gram = self._gram + features.mT @ features - old.mT @ old
        self.features[:, neurons] = features
        self._invert()

    def _invert(self) -> None:
        factor, failure = torch.linalg.cholesky_ex(self._gram)
        inverse = torch.where((failure == 0)[:, None, None], torch.cholesky_inverse(factor), torch.nan)
        is_prior = self.evidence.ridge.isinf()[:, None, None]
        self.inverse = torch.where(is_prior, 0.0, inverse)
        self.solution = self.inverse @ self.evidence.targets


class Exchanges:
    """Exchanges of the features of n neurons for candidates, one neuron after another.

    Two features o and c know of each other by M = phi_o^T G^{-1} phi_c and of the targets by
    S = phi^T V. With phi_c in the place of phi_o, by two ranks of Woodbury's formula,

        d = det G' / det G = (1 + M_cc) (1 - M_oo) + M_oc^2
        tr Y^T (G'^{-1} - G^{-1}) Y = [(1 + M_cc) |S_o|^2 - 2 M_oc S_o . S_c - (1 - M_oo) |S_c|^2] / d

    So a group of neurons costs one product with G^{-1}; the rest happens on small matrices.

    Parameters
    ----------
    gram
        Before the exchanges.
    neurons
        n different ones.
    candidates
        Their features, (C, n, k, P).
    """

    def __init__(self, gram: FeatureGram, neurons: Sequence[int], candidates: Tensor) -> None:
        self._gram, self._neurons = gram, neurons
        self._n_candidates = candidates.shape[2]
        old = gram.features[:, neurons]
        self._rows = torch.cat([old, candidates.flatten(1, 2)], 1)  # (C, n + n k, P): the present ones first
        self._m = self._rows @ gram.inverse @ self._rows.mT
        self._s = self._rows @ gram.solution
        self._kept = torch.arange(len(neurons), device=old.device).repeat(len(old), 1)  # rows: (C, n)
        self._chains = torch.arange(len(old), device=old.device)

    def _candidate_rows(self, index: int) -> slice:
        start = len(self._neurons) + index * self._n_candidates
        return slice(start, start + self._n_candidates)

    def log_ratios(self, index: int) -> Tensor:
        """Log evidence with each candidate of a neuron, minus that with its present features, (C, k)."""
        these = self._candidate_rows(index)
        m_oo, m_oc = self._m[:, index, index, None], self._m[:, index, these]
        m_cc = self._m[:, these, these].diagonal(dim1=-2, dim2=-1)
        s_o, s_c = self._s[:, index, None], self._s[:, these]
        det = (1.0 + m_cc) * (1.0 - m_oo) + m_oc**2
        rise = (1.0 + m_cc) * (s_o**2).sum(-1) - 2.0 * m_oc * (s_o * s_c).sum(-1)
        rise = (rise - (1.0 - m_oo) * (s_c**2).sum(-1)) / det
        evidence = self._gram.evidence
        return -0.5 / evidence.kernel_scale * rise - 0.5 * s_c.shape[-1] * det.log()

    def choose(self, index: int, choice: Tensor) -> None:
        """Give the neuron its candidate ``choice`` (C,), from 0 to k - 1; k leaves it as it is."""
        moved = choice < self._n_candidates
        row = self._candidate_rows(index).start + choice.clamp(max=self._n_candidates - 1)
        m_c = self._m[self._chains, row]  # (C, n + n k)
        pair = torch.stack([self._m[:, index], m_c], 1)  # (C, 2, n + n k)
        m_oo, m_oc = pair[:, 0, index], pair[:, 1, index]
        m_cc = m_c.gather(1, row[:, None])[:, 0]
        det = (1.0 + m_cc) * (1.0 - m_oo) + m_oc**2
        inverse = torch.stack([1.0 + m_cc, -m_oc, -m_oc, m_oo - 1.0], -1).reshape(-1, 2, 2)
        inverse = torch.where(moved[:, None, None], inverse / det[:, None, None], 0.0)
        lift = pair.mT @ inverse  # (C, n + n k, 2)
        fields = torch.stack([self._s[:, index], self._s[self._chains, row]], 1)
        self._m = self._m + lift @ pair
        self._s = self._s + lift @ fields
        self._kept[:, index] = torch.where(moved, row, self._kept[:, index])

    def finish(self) -> None:
        """Tell the Gram matrix."""
        self._gram.exchange(self._neurons, self._rows[self._chains[:, None], self._kept])
