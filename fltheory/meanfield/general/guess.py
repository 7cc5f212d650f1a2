"""Where the search for a kernel starts: neurons on codes for these targets, beside untrained ones."""

from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.branches import code_patterns, neuron_states
from fltheory.model import Model
from fltheory.numerics.validation import Array

_ACTIVE, _SILENT = 0.9, 0.1  # of phi's range: what a neuron is on the classes of its code, and on others
_SPANNED = 1e-6  # relative singular value below which a direction does not count


@frozen(eq=False)
class FirstGuess:
    """Of the kernel of a hidden layer below the last."""

    model: Model

    @cached_property
    def patterns(self) -> Array:
        """Activations of neurons on each code, (B, P)."""
        phi, kernel = self.model.nonlinearity, self.model.input_kernel
        scale = float(np.sqrt(np.diagonal(kernel).max()))
        low, high = np.asarray(phi(neuron_states(phi, scale)), dtype=float)
        active = _SILENT + (_ACTIVE - _SILENT) * code_patterns(self.model.task.targets)
        return np.asarray(low + (high - low) * active)

    @cached_property
    def _coded(self) -> Array:
        """All but the constant codes; those too where the others do not span the targets: odd phi."""
        patterns = self.patterns
        varied = patterns[np.ptp(patterns, axis=1) > 0]
        enough = _rank(varied) >= _rank(self.model.task.targets)
        return varied if enough else patterns

    def kernel(self, share: float, below: Array | None = None) -> Array:
        """<phi phi^T> between the prior's and that of neurons on the codes, whose share this is, (P, P).

        That of the prior on ``below``, K of the layer below: K_0 unless given.
        """
        prior = self.model.nonlinearity.gaussian_kernel(self.model.input_kernel if below is None else below)
        return np.asarray((1.0 - share) * prior + share * self._coded.T @ self._coded / len(self._coded))


def _rank(rows: Array) -> int:
    return int(np.linalg.matrix_rank(rows, tol=_SPANNED * np.linalg.norm(rows))) if rows.size else 0
