"""Condensed neurons of a layer, docs/theory.md (R2), (R4) and (R5).

One may stand on each class: z = sqrt(N) zbar, strongly active there. On orthogonal inputs it is on the
other side of the kink elsewhere, and given these sides (R4) is an eigenproblem on vectors that are
constant within classes. On the kernel of a hidden layer the sides are searched for.
"""

import math
from typing import Self

import numpy as np
from attrs import frozen

from fltheory.meanfield.outliers import Ray, RaySearch
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.numerics.validation import Array

_ROUNDING = 1e-12  # relative eigenvalue that is none


@frozen(eq=False)
class ClassRays:
    """The directions in which neurons of a layer condense, one a class.

    Attributes
    ----------
    strengths
        lambda of each, (C,): its gain over its cost; 0 for a class without one.
    preactivations, activations
        z and phi(z) on the classes with z^T K^{-1} z = 1 over all inputs, K the kernel from below,
        (C, C), one ray a row.
    pulls
        K^{-1} z on the classes, (C, C).
    """

    strengths: Array
    preactivations: Array
    activations: Array
    pulls: Array

    @classmethod
    def of(
        cls, conjugate: ClassMatrix, below: ClassMatrix, counts: Array, slopes: tuple[float, float]
    ) -> Self:
        """The rays of a layer with this Kt on this kernel from below."""
        if below.blocks.any():
            strengths, z, activations = _searched(conjugate, below, counts, slopes)
        else:
            strengths, z, activations = _one_active(conjugate, below.diagonal, counts, slopes)
        pulls = np.linalg.solve(below.on_means(counts), z.T).T / counts
        return cls(strengths, z, activations, pulls)

    def kernel(self, amplitudes: Array) -> ClassMatrix:
        """What condensed neurons with zbar^T K^{-1} zbar = ``amplitudes`` (C,) add to <phi phi^T>."""
        return _sum_of_squares(self.activations, amplitudes)

    def message(self, amplitudes: Array) -> ClassMatrix:
        """What they add to 2 dJ / dK, since the kernel from below is what they cost."""
        return _sum_of_squares(self.pulls, amplitudes)


def _sum_of_squares(vectors: Array, amplitudes: Array) -> ClassMatrix:
    return ClassMatrix((vectors.T * amplitudes) @ vectors, np.zeros(len(amplitudes)))


def _one_active(
    conjugate: ClassMatrix, variances: Array, counts: Array, slopes: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Strengths, z and phi of rays that are strong on one class each, on a diagonal kernel (C,)."""
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
    return strengths, z, sides * z


def _searched(
    conjugate: ClassMatrix, below: ClassMatrix, counts: Array, slopes: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """The same on any kernel: of the local maxima of lambda the strongest on each class."""
    strengths = np.zeros(len(counts))
    z, activations = np.zeros((2, len(counts), len(counts)))
    for ray in _local_maxima(conjugate, below, counts, slopes):
        c = int((counts * ray.activations**2).argmax())
        if ray.strength > strengths[c]:
            root = math.sqrt(ray.strength)  # z^T K^{-1} z of the ray as it was found is lambda
            strengths[c], z[c], activations[c] = (
                ray.strength,
                ray.preactivations / root,
                ray.activations / root,
            )
    return strengths, z, activations


def _local_maxima(
    conjugate: ClassMatrix, below: ClassMatrix, counts: Array, slopes: tuple[float, float]
) -> list[Ray]:
    """Of phi(z)^T Kt phi(z) / z^T K^{-1} z over z that are constant within classes, strongest first."""
    values, vectors = np.linalg.eigh(conjugate.on_sums(counts))
    field = np.asarray(vectors * np.sqrt(np.maximum(values, _ROUNDING * values[-1])))
    factor = np.asarray(np.linalg.cholesky(below.on_means(counts)))
    return RaySearch(factor, slopes, 1.0)(field)


def largest_gain(
    conjugate: ClassMatrix, below: ClassMatrix, counts: Array, slopes: tuple[float, float]
) -> float:
    """lambda of a layer: max_z phi(z)^T Kt phi(z) / z^T K^{-1} z, (R5) and (R6)."""
    return _local_maxima(conjugate, below, counts, slopes)[0].strength
