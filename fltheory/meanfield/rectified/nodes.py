"""Nodes of the class latents, and sums over them."""

import math

import numpy as np
from attrs import frozen

from fltheory.meanfield.rectified.sites import OutsideDomainError
from fltheory.numerics.validation import Array

_REACH, _SPACING = 30.0, 0.5  # of the lattice, in prior standard deviations of the latents
_SHORT = 7.0  # reach where phi is flat, and nothing drives a neuron
_UNDRIVEN = 1e-3  # slope of phi, relative to the other, that counts as flat
_ROUNDING = 1e-6
_SINGULAR = 1e-9  # relative eigenvalue of a covariance at which the lattice cannot resolve it


@frozen(eq=False)
class Lattice:
    """How finely and how far the latents are covered.

    Attributes
    ----------
    reach, spacing
        Of the nodes of h and u, in standard deviations of N(0, B) and N(0, k).
    cut
        Of the ray in the first layer: largest h, in units of 1 / sqrt(K_0).
    """

    reach: float = _REACH
    spacing: float = _SPACING
    cut: float = 2.5

    def fields(self, sd: float) -> Array:
        """Nodes of h, (H,)."""
        return _nodes(-self.reach * sd, self.reach * sd, self.spacing * sd)

    def centres(self, sd: float, slopes: tuple[float, float]) -> Array:
        """Nodes of u, (U,): far only where a slope of phi drives it."""
        low, high = (self.reach if abs(s) > _UNDRIVEN * max(map(abs, slopes)) else _SHORT for s in slopes)
        return _nodes(-low * sd, high * sd, self.spacing * sd)

    def bulk_fields(self, sd: float, variance: float, slopes: tuple[float, float]) -> Array:
        """Nodes of h in the first layer, off the ray, (H,).

        They are counted from the ray, where weights are not negligible: their number changes with
        ``sd``, and sums would jump if all of them moved.
        """
        ray = min(self.cut / math.sqrt(variance) / max(map(abs, slopes)), self.reach * sd)
        step = 0.5 * self.spacing * sd
        back = ray - step * np.arange(1 + math.ceil((ray + _SHORT * sd) / step))
        return np.asarray(back[::-1] if abs(slopes[1]) >= abs(slopes[0]) else -back)


def _nodes(low: float, high: float, spacing: float) -> Array:
    n_cells = math.ceil((high - low) / spacing - _ROUNDING)  # which does not depend on the scale
    return np.linspace(low, high, 1 + n_cells)


def inverse(matrix: Array) -> Array:
    """Of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    if not values[0] > _SINGULAR * values[-1]:
        raise OutsideDomainError
    return np.asarray((vectors / values) @ vectors.T)


def log_gaussian(precision: Array, nodes: list[Array], own: list[Array]) -> Array:
    """-x^T M x / 2 and a term of each x_c alone at all nodes, in few passes over them, (H, ..., H)."""
    grids, total = np.ix_(*nodes), np.zeros(())
    for c, (grid, alone) in enumerate(zip(grids, own, strict=True)):
        term = (alone - 0.5 * precision[c, c] * nodes[c] ** 2).reshape(grid.shape)
        for d in range(c):
            term = term - precision[c, d] * grids[d] * grid
        total = total + term
    return total


def trapezoid(nodes: Array) -> Array:
    """Logarithms of the weights of nodes on an interval, in cells."""
    weights = np.zeros(nodes.size)
    weights[[0, -1]] = -math.log(2.0)
    return weights


def score(covariance: Array, nodes: list[Array], weights: Array) -> Array:
    """C^{-1} <x x^T> C^{-1} - C^{-1}: twice the derivative of log E_{N(x|0,C)} f by C."""
    second, axes = np.empty_like(covariance), range(len(nodes))
    for c in axes:
        for d in axes[: c + 1]:
            pair = weights.sum(tuple(a for a in axes if a not in (c, d)))  # (nodes of d, nodes of c)
            moment = nodes[c] ** 2 @ pair if c == d else nodes[d] @ pair @ nodes[c]
            second[c, d] = second[d, c] = float(moment)
    precision = inverse(covariance)
    return np.asarray(precision @ second @ precision - precision)
