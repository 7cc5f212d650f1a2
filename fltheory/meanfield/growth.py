"""The growth R of a linear network's readouts: the fixed point (10') of docs/theory.md."""

from collections.abc import Callable

import numpy as np
from attrs import frozen
from scipy import optimize

from fltheory.numerics.validation import Array

RANK_CUT = 1e-10  # relative eigenvalue of K_0 that counts as zero
_WARM_UP = 30  # damped iterations before the root finder


@frozen(eq=False)
class GrowthEquation:
    """The fixed point (10') for R, written for its logarithm, which is symmetric and unconstrained.

    Attributes
    ----------
    kappa, projected
        Eigenvalues of K_0 in its range, (k,), and the targets y_k there, (k, m).
    noise
        N T.
    base
        sigma_a^2 Pi, U_1 at R = 1.
    depth
        L.
    inverse_width
        1 / N, or 0 to leave out the term of order P / N.
    """

    kappa: Array
    projected: Array
    noise: float
    base: float
    depth: int
    inverse_width: float = 0.0

    def fields(self, log_growth: Array) -> tuple[Array, Array, Array]:
        """t_k = C_k^{-1} y_k in the eigenbasis of U_1, with U_1's eigenvalues and eigenvectors."""
        stretch, vectors = np.linalg.eigh(self.base * matrix_function(np.exp, self.depth * log_growth))
        response = np.multiply.outer(self.kappa, stretch) + self.noise
        return (self.projected @ vectors) / response, stretch, vectors

    def sides(self, log_growth: Array) -> tuple[Array, Array]:
        """1 plus what learning adds to R, and what fluctuations of t take away, (m, m) both."""
        field, stretch, vectors = self.fields(log_growth)
        root = np.sqrt(stretch)
        learned = root[:, None] * (field.T @ (self.kappa[:, None] * field)) * root
        fitted = np.multiply.outer(self.kappa, stretch)
        lost = self.inverse_width * (fitted / (fitted + self.noise)).sum(0)
        return np.eye(len(root)) + vectors @ learned @ vectors.T, (vectors * lost) @ vectors.T

    def change(self, log_growth: Array) -> Array:
        """The logarithm of R as the right-hand side has it, without losses, minus that of R plus them.

        With the losses on the left both sides are positive at any R.
        """
        right, lost = self.sides(log_growth)
        if self.inverse_width == 0.0:
            return matrix_function(np.log, right) - log_growth
        return matrix_function(np.log, right) - matrix_function(
            np.log, matrix_function(np.exp, log_growth) + lost
        )

    def solve(self, max_iterations: int, report: Callable[[float], None]) -> tuple[Array, int]:
        """log R, by damped iteration, then by Powell's hybrid method; and the number of steps.

        The damping 1 / (L + 1) makes the iteration a contraction at T = 0 (docs/theory.md, section 4).
        """
        m = self.projected.shape[1]
        upper = np.triu_indices(m)

        def symmetric(entries: Array) -> Array:
            matrix = np.zeros((m, m))
            matrix[upper] = entries
            return matrix + np.triu(matrix, 1).T

        def change(entries: Array) -> Array:
            difference = self.change(symmetric(entries))[upper]
            report(float(np.abs(difference).max()))
            return np.asarray(difference)

        start = np.zeros((m, m))
        for _ in range(_WARM_UP):
            start = start + self.change(start) / (self.depth + 1)
        options = {"xtol": 1e-14, "maxfev": max_iterations * (1 + m * m)}
        found = optimize.root(change, start[upper], method="hybr", options=options)  # type: ignore[call-overload]
        return symmetric(found.x), _WARM_UP + int(found.nfev)


def spectrum(kernel: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of the range of K_0, (k,) and (P, k)."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > RANK_CUT * values[-1]
    return values[kept], vectors[:, kept]


def matrix_function(function: Callable[[Array], Array], matrix: Array) -> Array:
    """A function of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * function(values)) @ vectors.T)
