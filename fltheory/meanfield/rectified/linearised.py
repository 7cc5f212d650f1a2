"""Derivatives of the equations of a chain, by differences, along what keeps the symmetry of the task."""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.deep.blocks import ClassSymmetry
from fltheory.meanfield.rectified.chain import ChainPoint, ChainState
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.numerics.validation import Array, Booleans

_DIFFERENCE = 1e-7  # of numbers of order one; curvatures are up to 1e5
_FLATTEST = 1e-3  # curvature in a step, relative to the largest


@frozen(eq=False)
class Linearised:
    """The equations around a point: of t and Kt, and of the log amplitudes of condensed neurons.

    Attributes
    ----------
    point
        Where; the derivatives may be those of a point nearby.
    moves
        Symmetric directions of (t, Kt), orthonormal, (n, r).
    shares
        Symmetric directions of the log amplitudes of condensed neurons, (L C, k).
    jacobian
        Derivatives of the residual along ``moves`` and of lambda, (r + L C, r + k).
    """

    point: ChainPoint
    moves: Array
    shares: Array
    jacobian: Array

    @classmethod
    def at(cls, point: ChainPoint, symmetry: ClassSymmetry, active: Booleans) -> "Linearised":
        """Around a point, with these amplitudes (L, C) free."""
        counts, state = point.problem.counts, point.state
        x = state.pack(counts)
        moves = _fixed(lambda v: _average(state.unpack(v, counts), symmetry).pack(counts), len(x))
        shares = _fixed(lambda v: _average_amplitudes(v.reshape(active.shape), symmetry, active), active.size)
        states = [state.unpack(x + _DIFFERENCE * move, counts) for move in moves.T]
        states += [
            evolve(state, amplitudes=state.amplitudes * np.exp(_DIFFERENCE * share.reshape(active.shape)))
            for share in shares.T
        ]
        columns = [_difference(point, there, moves) for there in states]
        return cls(point, moves, shares, np.stack(columns, axis=1))

    @property
    def residual(self) -> Array:
        """Along ``moves``, (r,)."""
        return np.asarray(self.moves.T @ self.point.residual)

    @cached_property
    def inner_step(self) -> Array:
        """Newton's step in (t, Kt) at fixed amplitudes, (n,)."""
        r = self.moves.shape[1]
        return -np.asarray(self.moves @ np.linalg.solve(self.jacobian[:r, :r], self.residual))

    @cached_property
    def climb(self) -> tuple[Array, bool]:
        """Step in log amplitudes (L, C) that climbs J at optimal t and Kt, and whether J is concave there."""
        r, k = self.moves.shape[1], self.shares.shape[1]
        amplitudes = self.point.state.amplitudes
        if not k:
            return np.zeros_like(amplitudes), True
        own, across = self.jacobian[:r, :r], self.jacobian[:r, r:]
        back, direct = self.jacobian[r:, :r], self.jacobian[r:, r:]
        solved = np.linalg.solve(own, np.column_stack([across, self.residual]))
        weighted = self.shares.T * amplitudes.ravel()  # J rises by a (lambda - 1) / 2 with log a
        slope = weighted @ (self.point.excess.ravel() - back @ solved[:, k])
        curvature = weighted @ (direct - back @ solved[:, :k])
        scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(curvature)), 1e-300))
        values, vectors = np.linalg.eigh(0.5 * np.outer(scale, scale) * (curvature + curvature.T))
        size = np.maximum(np.abs(values), _FLATTEST * np.abs(values).max())
        step = self.shares @ (scale * (vectors @ ((vectors.T @ (scale * slope)) / size)))
        return step.reshape(amplitudes.shape), bool((values < 0).all())

    def response(self, growth: Array) -> Array:
        """How (t, Kt) follow log amplitudes that grow by ``growth`` (L, C), (n,)."""
        r = self.moves.shape[1]
        force = self.jacobian[:r, r:] @ (self.shares.T @ growth.ravel())
        return -np.asarray(self.moves @ np.linalg.solve(self.jacobian[:r, :r], force))

    @property
    def newton(self) -> tuple[Array, Array]:
        """Newton's step in all: (n,) and (L, C)."""
        r = self.moves.shape[1]
        rows = np.concatenate([self.jacobian[:r], self.shares.T @ self.jacobian[r:]])
        excess = self.point.excess
        step = -np.linalg.solve(rows, np.concatenate([self.residual, self.shares.T @ excess.ravel()]))
        return self.moves @ step[:r], (self.shares @ step[r:]).reshape(excess.shape)


def _difference(here: ChainPoint, state: ChainState, moves: Array) -> Array:
    there = evolve(here, state=state)
    off = [moves.T @ (there.residual - here.residual), (there.excess - here.excess).ravel()]
    return np.concatenate(off) / _DIFFERENCE


def _average(state: ChainState, symmetry: ClassSymmetry) -> ChainState:
    """Over the permutations of classes that the task does not notice."""
    pi, turns = symmetry.permutations, symmetry.rotations
    conjugates = tuple(
        ClassMatrix((pi @ kt.blocks @ pi.mT).mean(0), (pi @ kt.diagonal).mean(0)) for kt in state.conjugates
    )
    return evolve(state, field=(pi @ state.field @ turns.mT).mean(0), conjugates=conjugates)


def _average_amplitudes(amplitudes: Array, symmetry: ClassSymmetry, active: Booleans) -> Array:
    """The same of amplitudes (L, C), none where not ``active``: (L C,)."""
    averaged = (symmetry.permutations @ amplitudes.T).mean(0).T
    return np.where(active, averaged, 0.0).ravel()


def _fixed(project: Callable[[Array], Array], size: int) -> Array:
    """An orthonormal basis of what a projection leaves as it is, (size, r)."""
    matrix = np.stack([project(unit) for unit in np.eye(size)], axis=1)
    vectors, values, _ = np.linalg.svd(matrix)
    return np.asarray(vectors[:, : int(math.fsum(values) + 0.5)])
