"""Shares of codes: as the theory finds them, or imposed, docs/theory.md section 5.6.

Neurons of a network that is cooled by local moves settle on codes and stay there. Its theory is the
one at its own fractions p of codes: log Z of all branches is replaced by sum_c p_c log(Z_c / p_c),
with Z_c the branches of code c. The free theory is the maximum over p, where p_c = Z_c / Z.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, Self, runtime_checkable

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.solution import activity_threshold
from fltheory.model import Model
from fltheory.numerics.validation import Array, Booleans, Integers, check_real, check_sequence, describe
from fltheory.numerics.weights import relative_ess
from fltheory.representation import class_means

_FAINT = 1e-300
_SUM = 1e-6  # that fractions may differ from 1 in all


class MissingCodeError(ValueError):
    """A share is imposed on a code that no neuron can have."""


@runtime_checkable
class CountedCodes(Protocol):
    """Codes (k, n_classes) and their fractions (k,), as ``find_codes`` counts them."""

    codes: Integers
    fractions: Array


@frozen(eq=False)
class Mixing:
    """How branches, or drawn neurons, add up: in groups, each with a share that is its own.

    Attributes
    ----------
    member
        The group of each branch, (B,); -1 for one that takes no part.
    shares
        p of each group, (k,).
    fractions
        What says so, if anything does.
    """

    member: Integers
    shares: Array
    fractions: "ImposedFractions | None" = None

    @classmethod
    def free(cls, n_branches: int) -> Self:
        """All branches in one group: their shares are found, not imposed."""
        return cls(np.zeros(n_branches, dtype=np.int64), np.ones(1))

    @property
    def is_free(self) -> bool:
        """Whether nothing is imposed."""
        return bool((self.member == 0).all())

    def restricted(self, belonging: Array, activations: Array) -> Array:
        """How likely neurons (n,) are of each branch (n, B) if they are of none with another code.

        Their own code is that of ``activations``, (n, P). What a Gaussian branch has beyond the edge of
        another is little of that one, but may be more than all of a rare code.
        """
        if self.fractions is None:
            return belonging
        own = self.fractions.members(activations)[:, None] == self.member
        inside = np.where(own, np.maximum(belonging, _FAINT), 0.0)
        return np.asarray(inside / np.maximum(inside.sum(1, keepdims=True), _FAINT))

    def imposed(self, weights: Array, belonging: Array, probabilities: Array) -> Array:
        """Weights of drawn neurons (n,) such that branches have their probabilities (B,).

        ``belonging`` (n, B) is how likely each neuron is of each branch; nothing changes if all is free.
        """
        if self.is_free:
            return weights
        found = np.maximum(weights @ belonging, 1e-300)
        weights = weights * (belonging @ (probabilities / found))
        return np.asarray(weights / weights.sum())

    def log_sum(self, log_weights: Array) -> float:
        """log Z from the branches' log Z (B,): sum_c p_c log(Z_c / p_c)."""
        return float(self.shares @ (self.log_sizes(log_weights) - np.log(self.shares)))

    def log_sizes(self, log_weights: Array) -> Array:
        """log Z_c of each group, (k,)."""
        return np.array([logsumexp(log_weights[self.member == c]) for c in range(len(self.shares))])

    def weights(self, log_weights: Array) -> Array:
        """Probabilities of the branches, (B,)."""
        result = np.zeros_like(log_weights)
        for c, share in enumerate(self.shares):
            result[self.member == c] = share * softmax(log_weights[self.member == c])
        return result

    def evenness(self, weights: Array) -> float:
        """The smallest effective share inside a group."""
        inside = (weights[self.member == c] / share for c, share in enumerate(self.shares))
        return min(relative_ess(group) for group in inside)

    def centred(self, weights: Array, values: Array) -> Array:
        """What values of the branches (B, ...) differ by from the mean of their group."""
        result = np.array(values)
        for c, share in enumerate(self.shares):
            inside = self.member == c
            result[inside] -= np.tensordot(weights[inside] / share, values[inside], 1)
        return result


@frozen(eq=False)
class ImposedFractions:
    """Imposed shares of codes.

    Attributes
    ----------
    codes
        0 or 1 a class, (k, n_classes).
    shares
        Positive, of sum 1, (k,).
    averaging
        The mean over the inputs of each class, (P, n_classes).
    threshold
        Mean activation on a class above which a branch is active on it.
    """

    codes: Integers
    shares: Array
    averaging: Array
    threshold: float

    def of_groups(self, member: Integers) -> Self:
        """The same for activations of groups of inputs, ``member`` (P,) being the group of each."""
        grouped = np.zeros((int(member.max()) + 1, self.averaging.shape[1]))
        np.add.at(grouped, member, self.averaging)
        return evolve(self, averaging=grouped)

    def active(self, activations: Array) -> Booleans:
        """Whether neurons of activations (n, P) are active on each class, (n, n_classes)."""
        return np.asarray(activations @ self.averaging > self.threshold)

    def members(self, activations: Array) -> Integers:
        """Which of the codes neurons of activations (n, P) have, (n,); -1: none of them."""
        equal = (self.active(activations)[:, None, :] == self.codes).all(-1)  # (n, k)
        return np.where(equal.any(1), equal.argmax(1), -1)

    def mixing(self, activations: Array) -> Mixing:
        """Which branch, of mean activations (B, P), has which code; a code may have none."""
        return Mixing(self.members(activations), self.shares, self)

    def missing(self, mixing: Mixing) -> list[tuple[int, ...]]:
        """The codes without a branch."""
        lost = np.setdiff1d(np.arange(len(self.shares)), mixing.member)
        return [tuple(code) for code in self.codes[lost].tolist()]

    def require(self, mixing: Mixing, activations: Array) -> None:
        """Refuse codes that are no branches, which have the mean activations (B, P)."""
        missing = self.missing(mixing)
        if missing:
            active = np.unique(self.active(activations), axis=0).astype(int)
            known = sorted(map(tuple, active.tolist()))
            raise MissingCodeError(
                f"code_fractions: expected codes that are branches of the theory, {known}, got {missing}, "
                "which are none"
            )


def check_code_fractions(name: str, value: object, model: Model) -> ImposedFractions | None:
    """Imposed fractions: a mapping from code to fraction, or codes that were counted; None passes."""
    if value is None:
        return None
    if isinstance(value, CountedCodes):
        value = dict(zip(map(tuple, value.codes.tolist()), value.fractions.tolist(), strict=True))
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping from codes to fractions or Codes, got {describe(value)}")
    labels = model.task.labels
    if labels is None:
        raise ValueError(f"{name}: expected None for a task without labels, got {describe(value)}")
    if model.is_lazy or model.nonlinearity.is_linear or not model.nonlinearity.is_bounded:
        raise ValueError(
            f"{name}: expected None but for bounded nonlinearities and readout_scaling='non-lazy', which "
            f"make neurons settle on codes, got {describe(value)}"
        )
    n_classes = len(np.unique(labels))
    codes = [_check_code(name, code, n_classes) for code in value]
    shares = np.array(check_sequence(name, list(value.values()), check_real, minimum=0.0))
    if abs(shares.sum() - 1.0) > _SUM:
        raise ValueError(f"{name}: expected fractions of sum 1, got {shares.sum():.8g}")
    kept = shares > 0
    chosen = np.array(codes, dtype=np.int64)[kept]
    averaging = class_means(np.eye(len(labels)), labels)
    return ImposedFractions(chosen, shares[kept] / shares.sum(), averaging, activity_threshold(model))


def _check_code(name: str, code: object, n_classes: int) -> tuple[int, ...]:
    entries = tuple(code) if isinstance(code, Iterable) and not isinstance(code, str) else ()
    if len(entries) != n_classes or any(entry not in (0, 1) for entry in entries):
        raise ValueError(f"{name}: expected codes of {n_classes} entries 0 or 1, got {describe(code)}")
    return tuple(map(int, entries))
