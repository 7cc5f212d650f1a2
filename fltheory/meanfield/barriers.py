"""Whether the neurons of a layer stay on their codes: barriers between modes of the density of a latent."""

from collections.abc import Callable

import numpy as np
from attrs import frozen
from scipy.special import logsumexp, softmax

from fltheory.numerics.validation import Array

_PER_INPUT = 0.3  # of log density, that grows with P and that neurons do not cross
_N_ON_THE_WAY = 21  # points between two modes
_N_STARTS, _N_STEPS = 64, 100  # of the way up to a mode
_SAME, _RARE = 0.5, 0.01  # distance of two modes that are one, and share of the neurons of one that counts


def part_neurons(modes: Array, log_density: Callable[[Array], Array], n_inputs: int) -> bool:
    """Whether the density falls so far on the line between two of the modes (B, k) that none crosses."""
    share = np.linspace(0.0, 1.0, _N_ON_THE_WAY)[:, None]
    ways = [first + share * (second - first) for first in modes for second in modes]
    heights = [log_density(way) for way in ways]
    return any(min(h[0], h[-1]) - h.min() > _PER_INPUT * n_inputs for h in heights)


@frozen(eq=False)
class LatentDensity:
    """The density of xi, of which h = R xi, by neurons: given a neuron xi is Gaussian around R^T phi.

    Attributes
    ----------
    centres
        R^T phi of neurons of equal weight, (n, k).
    """

    centres: Array

    def __call__(self, latents: Array) -> Array:
        """Its logarithm but for a constant, at (B, k): (B,)."""
        return np.asarray(logsumexp(self._exponents(latents), axis=1))

    def _exponents(self, latents: Array) -> Array:
        return np.asarray(
            latents @ self.centres.T
            - 0.5 * (self.centres**2).sum(1)
            - 0.5 * (latents**2).sum(1, keepdims=True)
        )

    def modes(self) -> Array:
        """Those with a share of the neurons, (B, k), by mean shift from a few."""
        found = self.centres[:: max(1, len(self.centres) // _N_STARTS)]
        for _ in range(_N_STEPS):
            found = softmax(self._exponents(found), axis=1) @ self.centres
        distinct: list[Array] = []
        for mode in found:
            if all(np.linalg.norm(mode - other) > _SAME for other in distinct):
                distinct.append(mode)
        modes = np.stack(distinct)
        distances = ((self.centres[:, None] - modes) ** 2).sum(-1)
        shares = np.bincount(distances.argmin(1), minlength=len(modes)) / len(self.centres)
        return np.asarray(modes[shares > _RARE])
