"""Exact neurons of one layer on orthogonal inputs, from its lattice."""

from functools import reduce

import numpy as np

from fltheory.meanfield.rectified.lattice import LayerProblem
from fltheory.numerics.validation import Array, Integers

_CHUNK = 256  # neurons whose latents are drawn at once
_SWEEPS = 2  # after which latents have left the nodes


def draw_preactivations(layer: LayerProblem, n: int, member: Integers, rng: np.random.Generator) -> Array:
    """z of n independent neurons on inputs of these classes (P,), (n, P); in the first layer of the bulk.

    The latents start on nodes, by their weights, and z is drawn given them. Then h and u are drawn anew
    given z, as Gaussians, and z again: this keeps the law and leaves the nodes.
    """
    fields, centres = _latents(layer, n, rng)
    z = _sites(layer, fields, centres, member, rng)
    for _ in range(_SWEEPS):
        moved, stays = _fields_given(layer, z, member, rng)
        fields = np.where(stays[:, None], fields, moved)
        centres = centres if layer.is_first else _centres_given(layer, z, member, rng)
        z = _sites(layer, fields, centres, member, rng)
    return z


def _latents(layer: LayerProblem, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Nodes h and u by their joint weights, (n, C) each."""
    shape = layer.field_weights.shape
    chosen = rng.choice(layer.field_weights.size, size=n, p=layer.field_weights.ravel())
    at = np.stack(np.unravel_index(chosen, shape), axis=1)
    fields = np.stack([nodes[k] for nodes, k in zip(layer.fields, at.T, strict=True)], axis=1)
    parts = [_centres(layer, at[start : start + _CHUNK], rng) for start in range(0, n, _CHUNK)]
    return fields, np.concatenate(parts)


def _centres(layer: LayerProblem, at: Integers, rng: np.random.Generator) -> Array:
    """Nodes u given those of h: class by class, from weights summed over the later classes."""
    rows = [table[k] for table, k in zip(layer.tables, at.T, strict=True)]  # (n, U) each
    weights = [np.broadcast_to(layer.coupling, (len(at), *layer.coupling.shape))]  # of all classes
    for row in rows[:0:-1]:
        weights.append(np.einsum("s...u,su->s...", weights[-1], row))  # of one class less
    neurons = np.arange(len(at))
    chosen = list[Integers]()
    for row, weight in zip(rows, weights[::-1], strict=True):
        cumulative = (row * weight[(neurons, *chosen)]).cumsum(1)
        threshold = rng.random(len(at)) * cumulative[:, -1]
        chosen.append((cumulative < threshold[:, None]).sum(1))
    return np.stack([nodes[k] for nodes, k in zip(layer.centres, chosen, strict=True)], axis=1)


def _sites(
    layer: LayerProblem, fields: Array, centres: Array, member: Integers, rng: np.random.Generator
) -> Array:
    """z given h and u, (n, P)."""
    z = np.empty((len(fields), len(member)))
    for c, site in enumerate(layer.sites):
        inputs = np.flatnonzero(member == c)
        shape = (len(fields), len(inputs))
        h, u = (np.broadcast_to(x[:, c, None], shape) for x in (fields, centres))
        z[:, inputs] = site.draw(h, u, rng)
    return z


def _fields_given(
    layer: LayerProblem, z: Array, member: Integers, rng: np.random.Generator
) -> tuple[Array, Array]:
    """h given z, N(B s, B) with s the summed activity of each class; and where it would leave the bulk."""
    minus, plus = layer.slopes
    sums = np.where(z > 0, plus, minus) * z @ np.eye(len(layer.counts))[member]
    blocks = layer.conjugate.blocks
    noise = rng.standard_normal(sums.shape) @ np.linalg.cholesky(blocks).T
    moved = sums @ blocks + noise
    ends = np.array([nodes[[0, -1]] for nodes in layer.fields])
    outside = [(h < low) | (h > high) for h, (low, high) in zip(moved.T, ends, strict=True)]
    return moved, reduce(np.logical_or, outside)


def _centres_given(layer: LayerProblem, z: Array, member: Integers, rng: np.random.Generator) -> Array:
    """u given z, from its prior N(0, k) and the mean z of each class."""
    spread = layer.below.diagonal
    precision = np.linalg.inv(layer.below.blocks) + np.diag(layer.counts / spread)
    covariance = np.linalg.inv(precision)
    mean = (z @ np.eye(len(spread))[member] / spread) @ covariance
    return np.asarray(mean + rng.standard_normal(mean.shape) @ np.linalg.cholesky(covariance).T)
