"""Condensed neurons of the first layer, docs/theory.md (R2), (R4) and (R5).

One may stand on each class: z = sqrt(N) zbar, strongly active there and on the other side of the kink
elsewhere. Given these sides (R4) is an eigenproblem on vectors that are constant within classes.
"""

import numpy as np
from attrs import frozen

from fltheory.meanfield.outliers import RaySearch
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.numerics.validation import Array

_ROUNDING = 1e-12  # relative eigenvalue that is none


@frozen(eq=False)
class ClassRays:
    """The directions in which neurons of the first layer condense, one a class.

    Attributes
    ----------
    strengths
        lambda of each, (C,): its gain over its cost.
    preactivations, activations
        z and phi(z) on the classes with z^T K_0^{-1} z = 1 over all inputs, (C, C), one ray a row.
    """

    strengths: Array
    preactivations: Array
    activations: Array

    @classmethod
    def of(
        cls, conjugate: ClassMatrix, variances: Array, counts: Array, slopes: tuple[float, float]
    ) -> "ClassRays":
        """The rays under Kt_1, at diag K_0 = ``variances`` (C,)."""
        strong = max(slopes, key=abs)
        weak = min(slopes, key=abs)
        scale, gain = np.sqrt(variances / counts), conjugate.on_sums(counts)
        sides = np.where(np.eye(len(counts)), strong, weak)
        strengths, z = np.empty(len(counts)), np.empty_like(gain)
        for c, slope in enumerate(sides):
            through = scale * slope
            values, vectors = np.linalg.eigh(np.outer(through, through) * gain)
            strengths[c] = values[-1]
            direction = 1.0 if slopes[1] == strong else -1.0
            z[c] = scale * vectors[:, -1] * direction * np.sign(vectors[c, -1])
        return cls(strengths, z, sides * z)

    def kernel(self, amplitudes: Array) -> ClassMatrix:
        """What condensed neurons with zbar^T K_0^{-1} zbar = ``amplitudes`` (C,) add to <phi phi^T>."""
        blocks = (self.activations.T * amplitudes) @ self.activations
        return ClassMatrix(blocks, np.zeros(len(blocks)))


def largest_gain(
    conjugate: ClassMatrix, below: ClassMatrix, counts: Array, slopes: tuple[float, float]
) -> float:
    """lambda of a layer: max_z phi(z)^T Kt phi(z) / z^T K^{-1} z, (R5) and (R6)."""
    values, vectors = np.linalg.eigh(conjugate.on_sums(counts))
    field = np.asarray(vectors * np.sqrt(np.maximum(values, _ROUNDING * values[-1])))
    factor = np.asarray(np.linalg.cholesky(below.on_means(counts)))
    return RaySearch(factor, slopes, 1.0)(field)[0].strength
