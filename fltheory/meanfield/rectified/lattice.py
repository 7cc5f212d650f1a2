"""log Z of one layer on orthogonal inputs, and its derivatives, by sums over a lattice of class latents.

The conjugate kernel and the kernel from below are blocks over classes plus a diagonal. Given a field
h_c and a centre u_c for each class, h ~ N(0, B) and u ~ N(0, k), inputs are independent (``sites``):

    Z = int dh N(h | 0, B) int du N(u | 0, k) prod_c exp(n_c g(h_c, u_c)).

The integrand is smooth, so a uniform lattice is spectrally accurate once its spacing is below a
standard deviation; sums over one axis after another cost little for up to three classes. For the
first layer, whose kernel from below is diagonal, there is no u; there the condensed neurons are apart,
and the bulk is what is left when the ray on which they sit is cut off.
"""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.nodes import Lattice, inverse, log_gaussian, score, trapezoid
from fltheory.meanfield.rectified.sites import OutsideDomainError, RectifiedSite
from fltheory.numerics.validation import Array

_HIGHEST = 600.0  # logarithm of a weight over its inner sum, beyond which the sum is as good as nothing


@frozen(eq=False)
class LayerProblem:
    """A layer's neurons: their conjugate kernel, and the kernel from below.

    Attributes
    ----------
    counts
        n_c, (C,).
    conjugate
        Kt_l, its blocks positive definite.
    below
        K_{l-1}; without blocks in the first layer, whose kernel is diagonal.
    slopes
        s_- and s_+.
    lattice
        The nodes.
    """

    counts: Array
    conjugate: ClassMatrix
    below: ClassMatrix
    slopes: tuple[float, float]
    lattice: Lattice

    @property
    def is_first(self) -> bool:
        """Whether there are no latents u."""
        return not self.below.blocks.any()

    @cached_property
    def sites(self) -> list[RectifiedSite]:
        """One input of each class."""
        pairs = zip(self.below.diagonal, self.conjugate.diagonal, strict=True)
        return [RectifiedSite(self.slopes, float(e), float(d)) for e, d in pairs]

    @cached_property
    def fields(self) -> list[Array]:
        """Nodes of each h_c."""
        if not (np.diagonal(self.conjugate.blocks) > 0.0).all():
            raise OutsideDomainError
        sd = np.sqrt(np.diagonal(self.conjugate.blocks))
        if not self.is_first:
            return [self.lattice.fields(s) for s in sd]
        pairs = zip(sd, self.below.diagonal, strict=True)
        return [self.lattice.bulk_fields(s, v, self.slopes) for s, v in pairs]

    @cached_property
    def centres(self) -> list[Array]:
        """Nodes of each u_c: one, at zero, in the first layer."""
        if self.is_first:
            return [np.zeros(1)] * len(self.counts)
        if not (np.diagonal(self.below.blocks) > 0.0).all():
            raise OutsideDomainError
        return [self.lattice.centres(s, self.slopes) for s in np.sqrt(np.diagonal(self.below.blocks))]

    @cached_property
    def _split(self) -> tuple[Array, Array]:
        """The Gaussian of u as what each has for itself (C,) and exp of what couples them, (U, ..., U).

        u^T k^{-1} u = sum_c r_c u_c^2 + sum_{c<d} |p_cd| (u_c + sign(p_cd) u_d)^2: no factor is large.
        """
        if self.is_first:
            return np.zeros(len(self.counts)), np.ones((1,) * len(self.counts))
        precision = inverse(self.below.blocks)
        coupling = np.abs(precision - np.diag(np.diagonal(precision)))
        grids = np.ix_(*self.centres)
        exponent = np.zeros([len(u) for u in self.centres])
        for c, d in zip(*np.triu_indices(len(grids), 1), strict=True):
            distance = grids[c] + np.sign(precision[c, d]) * grids[d]
            exponent = exponent - 0.5 * coupling[c, d] * distance**2
        return np.diagonal(precision) - coupling.sum(1), np.exp(exponent)

    @cached_property
    def _rows(self) -> tuple[list[Array], list[Array]]:
        """exp(n_c g - r_c u^2 / 2) over (h_c, u_c), largest 1 in each row, and the rows' logarithms."""
        tables, scales = [], []
        parts = zip(self.sites, self.counts, self.fields, self.centres, self._split[0], strict=True)
        for site, n, h, u, own in parts:
            exponent = n * site.log_partition(h[:, None], u) - 0.5 * own * u**2
            largest = exponent.max(1)
            tables.append(np.exp(exponent - largest[:, None]))
            scales.append(largest)
        return tables, scales

    @cached_property
    def _sums(self) -> tuple[float, Array, Array]:
        """log Z; weight / inner sum; and the weight of each node of h, both (H, ..., H)."""
        scales, inner = self._rows[1], self._inward[-1]
        if self.is_first:
            scales = [scale + trapezoid(nodes) for scale, nodes in zip(scales, self.fields, strict=True)]
        outer = log_gaussian(inverse(self.conjugate.blocks), self.fields, scales)
        with np.errstate(divide="ignore"):
            exponent = np.log(inner)
        exponent += outer
        largest = float(exponent.max())
        if not math.isfinite(largest):
            raise OutsideDomainError
        outer -= largest  # in place from here on: these are the largest arrays
        ratio = np.exp(np.minimum(outer, _HIGHEST, out=outer), out=outer)
        ratio *= inner > 0.0
        weights = np.multiply(ratio, inner, out=exponent)
        total = float(weights.sum())
        if not total >= 1.0:  # the largest weight is, unless its inner sum underflows
            raise OutsideDomainError
        log_partition = largest + math.log(total) + self._log_measure()
        ratio /= total
        weights /= total
        return log_partition, ratio, weights

    def _log_measure(self) -> float:
        """Of one cell, and of the Gaussians' norms."""
        measure = 0.0
        covariances = ((self.fields, self.conjugate.blocks), (self.centres, self.below.blocks))
        for nodes, covariance in covariances[: 1 if self.is_first else 2]:
            measure += sum(math.log(x[1] - x[0]) for x in nodes)
            measure -= 0.5 * float(np.linalg.slogdet(2 * math.pi * covariance)[1])
        return measure

    @property
    def tables(self) -> list[Array]:
        """Weights of (h_c, u_c) in each class but for what couples classes, (H, U), rows scaled."""
        return self._rows[0]

    @property
    def coupling(self) -> Array:
        """The weight of u that couples classes, (U, ..., U)."""
        return self._split[1]

    @property
    def log_partition(self) -> float:
        """log Z_l."""
        return self._sums[0]

    @cached_property
    def _inward(self) -> list[Array]:
        """The weight of u with one axis after another summed over: u_1 becomes a last axis h_1, and so on."""
        found = [self.coupling]
        for table in self.tables:
            found.append(_sum_first(found[-1], table))
        return found

    @cached_property
    def _outward(self) -> tuple[list[Array], Array]:
        """Probability of (h_c, u_c) for each class, (H, U), and that of u, (U, ..., U).

        The derivatives of the sums of ``_inward``, from the last of them to the first.
        """
        found, back = list[Array](), self._sums[1]
        for table, before in zip(self.tables[::-1], self._inward[-2::-1], strict=True):
            n_fields, n_centres = table.shape
            found.append(table * (back.reshape(-1, n_fields).T @ before.reshape(n_centres, -1).T))
            back = _sum_last(back, table)
        return found[::-1], np.asarray(self.coupling * back)

    @property
    def joint(self) -> list[Array]:
        """Probability of (h_c, u_c) for each class, (H, U)."""
        return self._outward[0]

    @property
    def centre_weights(self) -> Array:
        """Probability of u, (U, ..., U)."""
        return self._outward[1]

    @property
    def field_weights(self) -> Array:
        """Probability of h, (H, ..., H)."""
        return self._sums[2]

    @cached_property
    def averages(self) -> tuple[Array, Array, Array]:
        """<phi>, <phi^2> and dg/de of one input of each class, (C,) each."""
        found = np.empty((3, len(self.counts)))
        parts = zip(self.sites, self.fields, self.centres, self.joint, strict=True)
        for c, (site, h, u, weights) in enumerate(parts):
            found[:, c] = [float((weights * value).sum()) for value in site.averages(h[:, None], u)]
        return found[0], found[1], found[2]

    @cached_property
    def edge(self) -> float:
        """Largest probability on an end of the lattice, where it should be none."""
        ends = [w.sum(1)[[0, -1]] for w in self.joint] if not self.is_first else []
        ends += [w.sum(0)[[0, -1]] for w in self.joint] if not self.is_first else []
        return float(np.max(ends, initial=0.0))

    @cached_property
    def kernel(self) -> ClassMatrix:
        """<phi phi^T>, by 2 d log Z / d Kt."""
        sums = score(self.conjugate.blocks, self.fields, self.field_weights)
        return self._per_pair(sums, self.averages[1])

    @cached_property
    def message(self) -> ClassMatrix:
        """2 d log Z / d K_{l-1}: right side of (7), but for sigma_l^2."""
        sums = score(self.below.blocks, self.centres, self.centre_weights)
        return self._per_pair(sums, 2 * self.averages[2])

    def _per_pair(self, sums: Array, own: Array) -> ClassMatrix:
        """From sums over pairs of inputs (C, C), which include each with itself, ``own`` (C,)."""
        blocks = sums / np.outer(self.counts, self.counts)
        same = (np.diagonal(sums) - self.counts * own) / (self.counts * (self.counts - 1))
        np.fill_diagonal(blocks, same)
        return ClassMatrix(blocks, own - same)


def _sum_first(tensor: Array, table: Array) -> Array:
    """Over the first axis u of (U, ...), with a table (H, U): (..., H)."""
    n_fields, n_centres = table.shape
    return np.asarray(tensor.reshape(n_centres, -1).T @ table.T).reshape(*tensor.shape[1:], n_fields)


def _sum_last(tensor: Array, table: Array) -> Array:
    """Over the last axis h of (..., H), with a table (H, U): (U, ...)."""
    n_fields, n_centres = table.shape
    return np.asarray(table.T @ tensor.reshape(-1, n_fields).T).reshape(n_centres, *tensor.shape[:-1])
