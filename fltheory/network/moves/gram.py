"""The posterior of features with the readout integrated out, as neurons exchange theirs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fltheory.network.readout import ReadoutPosterior


class FeatureGram:
    """G = Phi^T Phi + T / s of C chains: it follows the features as neurons exchange theirs.

    The log evidence is -tr Y^T V / (2 s) - (m / 2) log det G, with V = G^{-1} Y and s the kernel scale
    (docs/theory.md, section 8). At T = infinity it is constant, and G^{-1} counts as 0.

    Parameters
    ----------
    posterior
        Of the readouts, given the features at the start.

    Attributes
    ----------
    features
        Phi, shape (C, N, P).
    inverse, solution
        G^{-1} (C, P, P) and V (C, P, m); NaN where G is singular.
    """

    def __init__(self, posterior: ReadoutPosterior) -> None:
        self.features = phi = posterior.features.clone()
        self.kernel_scale, self._targets = posterior.kernel_scale, posterior.targets
        temperature = torch.as_tensor(posterior.temperature, dtype=phi.dtype, device=phi.device)
        self._is_prior = temperature.isinf().expand(len(phi))[:, None, None]
        ridge = torch.where(temperature.isinf(), 1.0, temperature / self.kernel_scale).reshape(-1, 1, 1)
        identity = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device)
        self._gram = phi.mT @ phi + ridge * identity
        self._chains = torch.arange(len(phi), device=phi.device)[:, None]
        self._invert()

    def _invert(self) -> None:
        factor, failure = torch.linalg.cholesky_ex(self._gram)
        inverse = torch.where((failure == 0)[:, None, None], torch.cholesky_inverse(factor), torch.nan)
        self.inverse = torch.where(self._is_prior, 0.0, inverse)
        self.solution = self.inverse @ self._targets

    def of(self, neurons: Tensor) -> Tensor:
        """The features (C, n, P) of ``neurons`` (C, n)."""
        return self.features[self._chains, neurons]

    def exchange(self, neurons: Tensor, features: Tensor) -> None:
        """Put features (C, n, P) in the place of those of ``neurons`` (C, n), which are different ones.

        G^{-1} is computed anew: updates of it would keep the errors of any near-singular G on the way.
        """
        old = self.of(neurons)
        self._gram = self._gram + features.mT @ features - old.mT @ old
        self.features[self._chains, neurons] = features
        self._invert()

    def log_ratios(self, old: Tensor, new: Tensor) -> Tensor:
        """Log evidence with features (C, k, n, P) in the place of ``old`` (C, n, P), less that now, (C, k).

        By Woodbury's formula: with A the 2 n features, S = A V and D = diag(-1, 1) for old and new,
        det G' / det G = det(1 + D A G^{-1} A^T) and tr Y^T (V' - V) = -tr S^T (D + A G^{-1} A^T)^{-1} S.
        """
        rows = torch.cat([old[:, None].expand_as(new), new], -2)  # (C, k, 2 n, P)
        capacity = _signs(rows) + rows @ self.inverse[:, None] @ rows.mT  # (C, k, 2 n, 2 n)
        fields = rows @ self.solution[:, None]  # (C, k, 2 n, m)
        log_det = torch.linalg.slogdet(capacity).logabsdet
        rise = -(fields * torch.linalg.solve(capacity, fields)).sum((-2, -1))
        return self._log_evidence(rise, log_det)

    def _log_evidence(self, rise: Tensor, log_det: Tensor) -> Tensor:
        """From tr Y^T V and log det G."""
        return -0.5 / self.kernel_scale * rise - 0.5 * self._targets.shape[-1] * log_det

    def couplings(self) -> Tensor:
        """How strongly a neuron depends on the others, shape (C, N).

        E kappa in (18), with E = <|a|^2> / (2 sigma_a^2) and kappa = phi^T G_-^{-1} phi, G_- of the others;
        infinite where the others alone leave G singular.
        """
        own = ((self.features @ self.inverse) * self.features).sum(-1)  # kappa / (1 + kappa)
        pull = (self.features @ self.solution).square().sum(-1) / self.kernel_scale
        left = (1.0 - own).clamp(min=0.0)  # 1 / (1 + kappa)
        return 0.5 * (pull + self._targets.shape[-1] * left) * own / left

    def exchanges(self, neurons: Sequence[int], candidates: Tensor) -> "Exchanges":
        """Begin to exchange the features of n different neurons for candidates (C, n, k, P)."""
        return Exchanges(self, neurons, candidates)


def _signs(rows: Tensor) -> Tensor:
    """diag(-1, 1): old features are taken out, as many new ones put in, (..., 2 n, P) -> (2 n, 2 n)."""
    sign = torch.ones(rows.shape[-2], dtype=rows.dtype, device=rows.device)
    sign[: len(sign) // 2] = -1.0
    return sign.diag()


class Exchanges:
    """Exchanges of the features of a group of neurons for candidates, one neuron after another.

    Two features o and c know of each other by M_oc = phi_o^T G^{-1} phi_c and of the targets by
    S_c = V^T phi_c. With c in the place of o, by Woodbury's formula with two ranks,

        d = det G' / det G = (1 + M_cc) (1 - M_oo) + M_oc^2
        tr Y^T (V' - V) = [ (1 + M_cc) |S_o|^2 - 2 M_oc S_o . S_c - (1 - M_oo) |S_c|^2 ] / d

    which is regular even if the others alone leave G singular. So a group of neurons costs one product
    with G^{-1}, and the rest happens on small matrices.
    """

    def __init__(self, gram: FeatureGram, neurons: Sequence[int], candidates: Tensor) -> None:
        n_chains, self._n, self._k, _ = candidates.shape
        self._gram = gram
        device = candidates.device
        self._neurons = torch.as_tensor(neurons, device=device).expand(n_chains, -1)
        self._rows = torch.cat(
            [gram.of(self._neurons), candidates.flatten(1, 2)], 1
        )  # (C, R, P), R = n + n k
        self._n_rows = self._rows.shape[1]
        m = self._rows @ gram.inverse @ self._rows.mT
        self._table = torch.cat([m, self._rows @ gram.solution], 2)  # M and S: (C, R, R + m)
        self._kept = torch.arange(self._n, device=device).repeat(
            n_chains, 1
        )  # the row of each neuron, (C, n)
        self._chains = torch.arange(n_chains, device=device)

    def log_ratios(self, index: int) -> Tensor:
        """Log evidence with each candidate of a neuron, less that with its present features, (C, k)."""
        start, table, rows = self._n + index * self._k, self._table, self._n_rows
        these = slice(start, start + self._k)
        s_o, s_c = table[:, index, None, rows:], table[:, these, rows:]
        self._old = 1.0 - table[:, index, index, None]  # (C, 1)
        self._cross = table[:, index, these]  # (C, k)
        self._new = 1.0 + table[:, these, these].diagonal(dim1=1, dim2=2)
        self._det = self._new * self._old + self._cross * self._cross
        rise = self._new * (s_o * s_o).sum(-1) - 2.0 * self._cross * (s_o * s_c).sum(-1)
        rise = (rise - self._old * (s_c * s_c).sum(-1)) / self._det
        return self._gram._log_evidence(rise, self._det.log())

    def choose(self, index: int, choice: Tensor) -> None:
        """Give the neuron candidate ``choice`` (C,) of those last asked for; k leaves it as it is."""
        moved, candidate = choice < self._k, choice.clamp(max=self._k - 1)
        row = self._n + index * self._k + candidate
        old, new = self._table[:, index], self._table[self._chains, row]  # (C, R + m)
        cross = self._cross[self._chains, candidate, None]
        scale = torch.where(moved, 1.0 / self._det[self._chains, candidate], 0.0)[:, None]
        left = (self._new[self._chains, candidate, None] * old - cross * new) * scale
        right = (cross * old + self._old * new) * scale
        lift = torch.stack([left[:, : self._n_rows], -right[:, : self._n_rows]], 2)  # (C, R, 2)
        self._table = torch.baddbmm(self._table, lift, torch.stack([old, new], 1))
        self._kept[:, index] = torch.where(moved, row, self._kept[:, index])

    def finish(self) -> None:
        """Tell the Gram matrix."""
        self._gram.exchange(self._neurons, self._rows[self._chains[:, None], self._kept])
