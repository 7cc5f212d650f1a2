"""The posterior of features with the readout integrated out, as neurons exchange theirs."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fltheory.network.readout import ReadoutPosterior
from fltheory.numerics.validation import Array, Integers

_FRESH = 32  # updates of G^{-1} before it is computed anew


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
    solved
        G^{-1} (1, Y / sqrt(s)), shape (C, P, P + m); NaN where G is singular.
    """

    def __init__(self, posterior: ReadoutPosterior) -> None:
        self.features = phi = posterior.features.clone()
        temperature = torch.as_tensor(posterior.temperature, dtype=phi.dtype, device=phi.device)
        self._is_prior = temperature.isinf().expand(len(phi))[:, None, None]
        ridge = torch.where(temperature.isinf(), 1.0, temperature / posterior.kernel_scale).reshape(-1, 1, 1)
        identity = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device)
        self._gram = phi.mT @ phi + ridge * identity
        self._root_scale = math.sqrt(posterior.kernel_scale)
        self._targets = posterior.targets / self._root_scale
        self._chains = torch.arange(len(phi), device=phi.device)[:, None]
        self._invert()

    def _invert(self) -> None:
        factor, failure = torch.linalg.cholesky_ex(self._gram)
        inverse = torch.where((failure == 0)[:, None, None], torch.cholesky_inverse(factor), torch.nan)
        inverse = torch.where(self._is_prior, 0.0, inverse)
        self.solved = torch.cat([inverse, inverse @ self._targets], 2)
        self._n_updates = 0

    @property
    def inverse(self) -> Tensor:
        """G^{-1}, shape (C, P, P)."""
        return self.solved[..., : self.features.shape[-1]]

    @property
    def solution(self) -> Tensor:
        """V, shape (C, P, m)."""
        return self._root_scale * self.solved[..., self.features.shape[-1] :]

    def of(self, neurons: Tensor) -> Tensor:
        """The features (C, n, P) of ``neurons`` (C, n)."""
        return self.features[self._chains, neurons]

    def exchange(self, neurons: Tensor, features: Tensor) -> None:
        """Put features (C, n, P) in the place of those of ``neurons`` (C, n), which are different ones.

        G^{-1} is computed anew: updates of it would keep the errors of any near-singular G on the way.
        """
        self._replace(neurons, features)
        self._invert()

    def update(self, neurons: Tensor, features: Tensor) -> None:
        """The same for likely features, which keep G regular: G^{-1} follows, and is new now and then."""
        rows, p = torch.cat([self.of(neurons), features], 1), features.shape[2]
        self._replace(neurons, features)
        self._n_updates += neurons.shape[1]
        if self._n_updates >= _FRESH:
            self._invert()
        else:
            solved = rows @ self.solved
            change = torch.linalg.solve_ex(_signs(rows) + solved[..., :p] @ rows.mT, solved).result
            self.solved.baddbmm_(solved[..., :p].mT, change, alpha=-1.0)

    def _replace(self, neurons: Tensor, features: Tensor) -> None:
        old = self.of(neurons)
        self._gram.baddbmm_(features.mT, features).baddbmm_(old.mT, old, alpha=-1.0)
        self.features[self._chains, neurons] = features

    def log_ratios(self, old: Tensor, new: Tensor) -> Tensor:
        """Log evidence with features (C, k, n, P) in the place of ``old`` (C, n, P), less that now, (C, k).

        By Woodbury's formula: with A the 2 n features, S = A V and D = diag(-1, 1) for old and new,
        det G' / det G = det(1 + D A G^{-1} A^T) and tr Y^T (V' - V) = -tr S^T (D + A G^{-1} A^T)^{-1} S.
        """
        rows = torch.cat([old[:, None].expand_as(new), new], -2)  # (C, k, 2 n, P)
        solved = rows @ self.solved[:, None]
        fields = solved[..., rows.shape[-1] :]  # S / sqrt(s): (C, k, 2 n, m)
        capacity = _signs(rows) + solved[..., : rows.shape[-1]] @ rows.mT  # (C, k, 2 n, 2 n)
        log_det = torch.linalg.slogdet(capacity).logabsdet
        fall = (fields * torch.linalg.solve(capacity, fields)).sum((-2, -1))
        ratios: Tensor = 0.5 * (fall - fields.shape[-1] * log_det)
        return ratios

    def couplings(self) -> Tensor:
        """How strongly a neuron depends on the others, shape (C, N).

        E kappa in (18), with E = <|a|^2> / (2 sigma_a^2) and kappa = phi^T G_-^{-1} phi, G_- of the others;
        infinite where the others alone leave G singular.
        """
        solved, p = self.features @ self.solved, self.features.shape[-1]
        own = (solved[..., :p] * self.features).sum(-1)  # kappa / (1 + kappa)
        pull = solved[..., p:].square().sum(-1)
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
    with G^{-1}. The rest happens on small matrices, in numpy on the host whatever the device: there a
    small operation costs a fraction of what it does in torch.

    Attributes
    ----------
    choices
        What each neuron was given, shape (C, n): a candidate, or k for what it had.
    """

    def __init__(self, gram: FeatureGram, neurons: Sequence[int], candidates: Tensor) -> None:
        n_chains, n, self._k, p = candidates.shape
        self._gram, device = gram, candidates.device
        self._neurons = torch.as_tensor(neurons, device=device).expand(n_chains, -1)
        options = torch.cat([candidates, gram.of(self._neurons)[:, :, None]], 2)
        self._rows = options.flatten(1, 2)  # (C, R, P), R = n (k + 1): the candidates of each, and its own
        self._n_rows = self._rows.shape[1]
        solved = self._rows @ gram.solved
        m = solved[..., :p] @ self._rows.mT
        self._table = torch.cat([m, solved[..., p:]], 2).cpu().numpy()  # M and S: (C, R, R + m)
        self._own = np.einsum("crr->cr", self._table[..., : self._n_rows])  # the diagonal, as a view
        self._chains = np.arange(n_chains)
        self.choices = np.full((n_chains, n), self._k)

    @np.errstate(all="ignore")
    def log_ratios(self, index: int) -> Tensor:
        """Log evidence with each candidate of a neuron, less that with its present features, (C, k)."""
        k, first = self._k, index * (self._k + 1)
        last, table = first + k, self._table
        fields, own = table[:, first : last + 1, self._n_rows :], self._own[:, first : last + 1]
        self._old, self._new = 1.0 - own[:, k:], 1.0 + own[:, :k]  # (C, 1), (C, k)
        self._cross = table[:, last, first:last]  # (C, k)
        self._det = self._new * self._old + self._cross * self._cross
        squares, products = (fields * fields).sum(-1), (fields @ fields[:, k, :, None])[:, :k, 0]
        rise = self._new * squares[:, k:] - 2.0 * self._cross * products - self._old * squares[:, :k]
        ratios = -0.5 * (rise / self._det + fields.shape[-1] * np.log(self._det))
        return torch.as_tensor(ratios, device=self._neurons.device)

    @np.errstate(all="ignore")
    def choose(self, index: int, choice: Tensor) -> None:
        """Give the neuron candidate ``choice`` (C,) of those last asked for; k leaves it as it is."""
        self.choices[:, index] = chosen = choice.cpu().numpy()
        first, end = index * (self._k + 1), (index + 1) * (self._k + 1)
        if end < self._n_rows and (chosen < self._k).any():  # what is behind is not followed
            change = self._change(chosen)
            pair = np.array([[first + self._k] * len(chosen), first + chosen]).T  # rows, (C, 2)
            rows = self._table[self._chains[:, None], pair, end:]
            lift = rows[..., : self._n_rows - end].swapaxes(1, 2)
            self._table[:, end:, end:] += lift @ (change @ rows)

    def _change(self, choice: Integers) -> Array:
        """B (C, 2, 2), with M changed by X^T B X for X its two rows of what goes and what comes."""
        candidate = np.minimum(choice, self._k - 1)
        new, cross, det = (x[self._chains, candidate] for x in (self._new, self._cross, self._det))
        change = np.array([[new, -cross], [-cross, -self._old[:, 0]]]) / det
        return np.where(choice < self._k, change, 0.0).transpose(2, 0, 1)

    def finish(self) -> None:
        """Tell the Gram matrix."""
        if (self.choices < self._k).any():
            kept = (self._k + 1) * np.arange(self.choices.shape[1]) + self.choices
            self._gram.update(self._neurons, self._rows[self._chains[:, None], kept])
