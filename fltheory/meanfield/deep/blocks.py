"""Matrices over the inputs that depend on their classes alone, and the symmetries among classes."""

import itertools
import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.numerics.validation import Array, Integers

_MOST_PERMUTED = 6  # classes up to which all permutations are tried
_SAME = 1e-9  # relative difference of targets or variances that is none


@frozen(eq=False)
class ClassBlocks:
    """M_mu,nu = blocks_cd + diagonal_c delta_mu,nu for inputs mu, nu of classes c, d.

    Attributes
    ----------
    blocks, diagonal
        Shapes (G, G) and (G,).
    """

    blocks: Array
    diagonal: Array

    @cached_property
    def root(self) -> Array:
        """The symmetric square root of the blocks, which permutes as they do, (G, G)."""
        values, vectors = np.linalg.eigh(self.blocks)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)

    @cached_property
    def nonnegative(self) -> "ClassBlocks":
        """The nearest one whose blocks have no negative eigenvalue."""
        return ClassBlocks(self.root @ self.root, self.diagonal)

    def scaled(self, factor: float) -> "ClassBlocks":
        """The matrix times a number."""
        return ClassBlocks(factor * self.blocks, factor * self.diagonal)

    def expand(self, member: Integers) -> Array:
        """The matrix over the inputs, given the class of each, (P, P)."""
        matrix = self.blocks[np.ix_(member, member)]
        matrix[np.diag_indices_from(matrix)] += self.diagonal[member]
        return np.asarray(matrix)

    def trace_with(self, other: "ClassBlocks", counts: Array) -> float:
        """tr A B over the inputs."""
        own = np.diagonal(self.blocks) * other.diagonal + self.diagonal * np.diagonal(other.blocks)
        return float(
            counts @ (self.blocks * other.blocks) @ counts + counts @ (own + self.diagonal * other.diagonal)
        )


@frozen(eq=False)
class ClassSymmetry:
    """The permutations of the classes that a task does not notice.

    A permutation counts if an orthogonal map O of the outputs undoes it: Y_pi = Y O, with the same numbers
    of inputs and the same variances.

    Attributes
    ----------
    permutations, rotations
        Matrices Pi (M, G, G) and O (M, m, m), with Pi Y = Y O; the first is the identity.
    """

    permutations: Array
    rotations: Array

    @classmethod
    def none(cls, groups: GroupedTargets) -> "ClassSymmetry":
        """The identity alone."""
        n_groups, m = groups.targets.shape
        return cls(np.eye(n_groups)[None], np.eye(m)[None])

    @classmethod
    def of(cls, groups: GroupedTargets) -> "ClassSymmetry":
        """All symmetries of a task, or only the identity if it has many classes."""
        y, n_groups = groups.targets, len(groups.counts)
        inverse, gram = np.linalg.pinv(y), y @ y.T
        properties = np.column_stack([groups.counts, groups.variances])
        rest = np.eye(y.shape[1]) - inverse @ y
        found = []
        orders = itertools.permutations(range(n_groups)) if n_groups <= _MOST_PERMUTED else [range(n_groups)]
        for order in map(list, orders):
            if _equal(gram[np.ix_(order, order)], gram) and _equal(properties[order], properties):
                found.append((np.eye(n_groups)[order], inverse @ y[order] + rest))
        permutations, rotations = (np.stack(part) for part in zip(*found, strict=True))
        return cls(permutations, rotations)

    def images(self, of_field: Array, n_common: int) -> Array:
        """The symmetries (M, r + q, r + q) on latents: ``of_field`` (M, r, r), and permutations."""
        count, rank = of_field.shape[:2]
        result = np.zeros((count, rank + n_common, rank + n_common))
        result[:, :rank, :rank] = of_field
        result[:, rank:, rank:] = self.permutations[:, :n_common, :n_common]
        return result

    def of_blocks(self, matrix: ClassBlocks) -> ClassBlocks:
        """The average over all permutations."""
        pi = self.permutations
        blocks = (pi @ matrix.blocks @ pi.swapaxes(1, 2)).mean(0)
        return ClassBlocks(0.5 * (blocks + blocks.T), (pi @ matrix.diagonal).mean(0))

    def of_field(self, field: Array) -> Array:
        """The average of Pi t O^T, (G, m)."""
        return np.asarray((self.permutations @ field @ self.rotations.swapaxes(1, 2)).mean(0))

    @cached_property
    def field_basis(self) -> Array:
        """An orthonormal basis of the symmetric t, (k, G m)."""
        pi, o = self.permutations, self.rotations
        size = pi.shape[1] * o.shape[1]
        projector = np.einsum("sij,skl->ikjl", pi, o).reshape(size, size) / len(pi)
        values, vectors = np.linalg.eigh(0.5 * (projector + projector.T))
        return np.asarray(vectors[:, values > 0.5].T)

    @cached_property
    def _orbits(self) -> tuple[Integers, Integers]:
        """Which of the unknown numbers each entry of the blocks and of the diagonal is."""
        orders = self.permutations.argmax(2)
        n = orders.shape[1]
        pairs = np.arange(n * n).reshape(n, n)
        of_pairs = np.min([np.minimum(pairs, pairs.T)[np.ix_(o, o)] for o in orders], axis=0)
        of_pairs = np.minimum(of_pairs, of_pairs.T)
        of_classes = orders.min(0)
        blocks = np.unique(of_pairs, return_inverse=True)[1].reshape(n, n)
        return blocks.astype(np.int64), np.unique(of_classes, return_inverse=True)[1].astype(np.int64)

    @property
    def n_unknowns(self) -> int:
        """Of one symmetric matrix."""
        blocks, classes = self._orbits
        return int(blocks.max() + classes.max()) + 2

    def pack(self, matrix: ClassBlocks, scale: float) -> Array:
        """The distinct numbers of a matrix, averaged over those that are alike; blocks times ``scale``."""
        parts = []
        for orbits, entries in zip(self._orbits, (scale * matrix.blocks, matrix.diagonal), strict=True):
            parts.append(np.bincount(orbits.ravel(), entries.ravel()) / np.bincount(orbits.ravel()))
        return np.concatenate(parts)

    def unpack(self, numbers: Array, scale: float) -> ClassBlocks:
        """The matrix of these numbers."""
        blocks, classes = self._orbits
        return ClassBlocks(numbers[blocks] / scale, numbers[blocks.max() + 1 :][classes])


def _equal(one: Array, other: Array) -> bool:
    scale = max(float(np.abs(one).max()), math.ulp(0.0))
    return bool(np.abs(one - other).max() <= _SAME * scale)
