"""Condensed neurons: where the law of one neuron ceases to be normalisable, docs/theory.md (11)-(14).

For phi with a non-zero asymptotic slope, lambda(t) = sigma_a^2 max_w |t^T phi_inf(F w)|^2 / |w|^2 must not
exceed 1, (14e), with z = F w and K_0 = F F^T. Each local maximum is a ray along which a neuron can grow.
lambda is a convex function of t, and the multiplier of lambda <= 1 is the neuron that has condensed.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.branches import distinct_rows
from fltheory.numerics.validation import Array, Booleans

_ALL_SIGNS = 6  # distinct rows of t up to which every pattern of signs is a start
_N_RANDOM, _MANY = 24, 200  # random directions beyond the axes, and random neurons; to make sure
_ALTERNATIONS, _PROJECTIONS = 12, 15  # steps in u, and of the box program inside each
_SETTLED = 1e-10
_KINK = 1e-3  # relative |z| of an entry that may sit at the kink
_CONSISTENT = 1e-6  # relative error of (12) up to which the active sets of a ray are right
_SAME = 1e-3  # relative difference of two rays that are one
_IRRELEVANT = 0.5  # lambda below which a ray is no constraint, if another is above
_MOST_CHANGES = 20  # of the active sets of one ray
_NO_OUTLIER = 1e-6  # c_k, relative to the largest, that is none
_CLOSEST = 1e-2  # relative gap of eigenvalues in the curvature, at least


@frozen(eq=False)
class Ray:
    """A direction in which a neuron can grow: a = r u, z = r ``preactivations``, r large.

    Attributes
    ----------
    strength
        lambda: the neuron's gain along the ray over its cost.
    direction
        u, of norm 1, (m,).
    preactivations, activations
        z and phi_inf(z) for a = u, (P,).
    response
        E (P, q) with d phi_inf(z) = E dw along the ray, z = F w: slope by slope, without directions
        that would move an input off the kink.
    field
        t, (P, m).
    readout_variance
        sigma_a^2.
    """

    strength: float
    direction: Array
    preactivations: Array
    activations: Array
    response: Array
    field: Array
    readout_variance: float

    @property
    def gradient(self) -> Array:
        """d lambda / d t = 2 sigma_a^2 phi_inf(z) u^T, (14f), (P, m)."""
        return np.asarray(2.0 * self.readout_variance * np.outer(self.activations, self.direction))

    @cached_property
    def curvature(self) -> Array:
        """W with d^2 lambda / dt^2 = W W^T while no input changes sides, (P m, q + m - 1): (14f)."""
        u, response = self.direction, self.response
        drive = response.T @ self.field  # (q, m)
        values, vectors = np.linalg.eigh(drive.T @ drive)
        own = int(np.abs(vectors.T @ u).argmax())
        columns = [(response[:, None, :] * u[:, None]).reshape(self.field.size, -1)]
        for other in np.delete(np.arange(len(u)), own):
            gap = max(values[own] - values[other], _CLOSEST * values[own])
            side = vectors[:, other]
            turn = np.outer(response @ (drive @ u), side) + np.outer(response @ (drive @ side), u)
            columns.append(turn.reshape(-1, 1) / math.sqrt(gap))
        return np.asarray(math.sqrt(2.0 * self.readout_variance) * np.concatenate(columns, axis=1))

    @property
    def is_consistent(self) -> bool:
        """Whether the neuron's readout is the one that its activity asks for, (12)."""
        gain = self.strength / self.readout_variance
        return bool(
            np.linalg.norm(self.activations @ self.field - gain * self.direction) < _CONSISTENT * gain
        )

    @property
    def excess(self) -> float:
        """lambda - 1, which must not be positive: a ray is a ``Constraint``."""
        return self.strength - 1.0


@frozen(eq=False)
class CondensedNeurons:
    """Neurons with a = sqrt(N) ``readouts`` and z = sqrt(N) ``preactivations``, (11) and (12).

    Attributes
    ----------
    readouts, preactivations
        For k neurons, (k, m) and (k, P).
    slopes
        s_- and s_+.
    """

    readouts: Array
    preactivations: Array
    slopes: tuple[float, float]

    @classmethod
    def along(
        cls, rays: Sequence[Ray], amplitudes: Array, slopes: tuple[float, float], spread: Array | None = None
    ) -> "CondensedNeurons":
        """Those with a positive c_k of (14b), strongest first.

        ``spread`` (P, G) takes the activity of the groups that the rays were found on to all inputs.
        """
        largest = amplitudes.max(initial=0.0)
        kept = [k for k in np.argsort(-amplitudes) if amplitudes[k] > _NO_OUTLIER * largest]
        root = np.sqrt(amplitudes[kept])[:, None]
        m = rays[0].direction.size
        readouts = root * np.array([rays[k].direction for k in kept]).reshape(-1, m)
        along = np.array([rays[k].preactivations for k in kept]).reshape(-1, rays[0].preactivations.size)
        return cls(readouts, root * (along if spread is None else along @ spread.T), slopes)

    def __len__(self) -> int:
        return len(self.readouts)

    @property
    def activations(self) -> Array:
        """phi_inf(z) on the training inputs, (k, P)."""
        return self.activate(self.preactivations)

    @property
    def outputs(self) -> Array:
        """Sum of phi_inf(z) a^T, (P, m)."""
        return np.asarray(self.activations.T @ self.readouts)

    def activate(self, z: Array) -> Array:
        """phi_inf."""
        return self.slope(z) * z

    def slope(self, z: Array) -> Array:
        """phi_inf'; 0 at the kink, where a condensed neuron is held."""
        minus, plus = self.slopes
        return np.where(z > 0, plus, np.where(z < 0, minus, 0.0))


@frozen(eq=False)
class RaySearch:
    """Finds the local maxima of lambda: the certificate (14), by (14a).

    Attributes
    ----------
    factor
        F (P, q) with K_{L-1} = F F^T.
    slopes
        s_- and s_+.
    readout_variance
        sigma_a^2.
    seed
        Of the random starts.
    n_random
        How many of each kind.
    """

    factor: Array
    slopes: tuple[float, float]
    readout_variance: float
    seed: int = 0
    n_random: int = _N_RANDOM

    def thorough(self, field: Array, known: Sequence[Ray]) -> list[Ray]:
        """The rays at t from many more starts."""
        return evolve(self, n_random=_MANY)(field, known)

    def __call__(self, field: Array, known: Sequence[Ray] = ()) -> list[Ray]:
        """The rays at t (P, m), strongest first, from starts of all kinds and from ``known`` rays."""
        starts = [self._from_signs(field), self._from_neurons(field)]
        if known:
            directions = np.stack([ray.direction for ray in known])
            slopes = self._slopes(np.stack([ray.preactivations for ray in known]) > 0)
            starts.append((directions, slopes * (directions @ field.T)))
        directions, pulls = self._ascend(field, *(np.concatenate(part) for part in zip(*starts, strict=True)))
        rays = [self._exact(field, u, v) for u, v in zip(directions, pulls, strict=True)]
        rays = [ray for ray in rays if ray.is_consistent] or rays
        kept: list[Ray] = []
        for ray in sorted(rays, key=lambda ray: -ray.strength):
            scale = _SAME * np.abs(ray.preactivations).max()
            if all(np.abs(ray.preactivations - other.preactivations).max() > scale for other in kept):
                kept.append(ray)
        return [ray for ray in kept if ray.strength > _IRRELEVANT * kept[0].strength]

    def _from_signs(self, field: Array) -> tuple[Array, Array]:
        """Starts u, v: axes, random directions, and the best u for each pattern of signs of few classes."""
        m = field.shape[1]
        random = np.random.default_rng(self.seed).standard_normal((self.n_random if m > 1 else 0, m))
        starts = [np.eye(m), -np.eye(m), random]
        rows, member = distinct_rows(field)
        if len(rows) <= _ALL_SIGNS:
            signs = np.array(list(itertools.product(self.slopes, repeat=len(rows))))
            drive = np.einsum("pq,bp,pm->bqm", self.factor, signs[:, member], field, optimize=True)
            vectors = np.linalg.eigh(drive.mT @ drive)[1].mT.reshape(-1, m)
            starts += [vectors, -vectors]
        directions = np.concatenate(starts)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions, self._activate(directions @ field.T)

    def _from_neurons(self, field: Array) -> tuple[Array, Array]:
        """Starts u, v of random neurons of the prior."""
        rng = np.random.default_rng(self.seed + 1)
        random = rng.standard_normal((self.n_random, self.factor.shape[1]))
        z = random @ self.factor.T
        directions = _unit(self._activate(z) @ field, np.eye(field.shape[1])[0])
        return directions, self._slopes(z > 0) * (directions @ field.T)

    def _slopes(self, positive: Booleans) -> Array:
        minus, plus = self.slopes
        return np.where(positive, plus, minus)

    def _activate(self, z: Array) -> Array:
        return np.asarray(self._slopes(z > 0) * z)

    def _preactivations(self, pull: Array) -> Array:
        return np.asarray((pull @ self.factor) @ self.factor.T)

    def _box(self, h: Array) -> tuple[Array, Array, Booleans]:
        """Between which bounds v may lie, and where h phi_inf(z) is concave in z."""
        minus, plus = self.slopes
        return np.minimum(minus * h, plus * h), np.maximum(minus * h, plus * h), (plus - minus) * h < 0

    def _ascend(self, field: Array, directions: Array, pull: Array) -> tuple[Array, Array]:
        """Alternate u ~ t^T phi_inf(z), z = K v with the program (14a) for v: u (B, m) and v (B, P)."""
        largest = float(np.linalg.norm(self.factor, 2)) ** 2
        z = self._preactivations(pull)
        for _ in range(_ALTERNATIONS):
            h = directions @ field.T
            low, high, concave = self._box(h)
            start = np.where(concave, np.clip(pull, low, high), self._slopes(z > 0) * h)
            pull = self._project(start, low, high, concave, largest)
            z = self._preactivations(pull)
            turned = _unit(self._activate(z) @ field, directions)
            moved, directions = np.abs(turned - directions).max(), turned
            if moved < _SETTLED:
                break
        return directions, pull

    def _project(self, start: Array, low: Array, high: Array, concave: Booleans, largest: float) -> Array:
        """Minimise v K v over the concave entries in their box, by accelerated projected gradients."""
        x = y = start
        momentum = 1.0
        for _ in range(_PROJECTIONS):
            moved = np.where(concave, np.clip(y - self._preactivations(y) / largest, low, high), start)
            if np.abs(moved - x).max() <= _SETTLED * np.abs(high).max():
                return moved
            faster = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
            y = moved + (momentum - 1.0) / faster * (moved - x)
            x, momentum = moved, faster
        return np.asarray(x)

    def _exact(self, field: Array, direction: Array, pull: Array) -> Ray:
        """The ray near a start: an eigenproblem on its active sets, which are corrected by its solution."""
        z = self._preactivations(pull[None])[0]
        low, high, concave = self._box(field @ direction)
        kink = (np.abs(z) < _KINK * np.abs(z).max()) & concave & (pull > low) & (pull < high)
        positive = z > 0
        for _ in range(_MOST_CHANGES):
            ray = self._on_sides(field, direction, positive, kink)
            direction = ray.direction
            sides, held = self._sides(ray, positive, kink)
            if (held == kink).all() and (sides == positive)[~kink].all():
                break
            positive, kink = sides, held
        return ray

    def _on_sides(self, field: Array, direction: Array, positive: Booleans, kink: Booleans) -> Ray:
        """The stationary point with these inputs on either side of the kink, or at it."""
        response = np.where(kink, 0.0, self._slopes(positive))[:, None] * self.factor
        held = self.factor[kink]
        if len(held):
            response = response - (response @ np.linalg.pinv(held, rcond=1e-10)) @ held
        drive = response.T @ field
        vectors = np.linalg.eigh(drive.T @ drive)[1]
        overlap = vectors.T @ direction
        own = int(np.abs(overlap).argmax())
        direction = vectors[:, own] * math.copysign(1.0, overlap[own])
        latent = drive @ direction
        z = np.where(kink, 0.0, self.factor @ latent)
        strength = self.readout_variance * float(latent @ latent)
        return Ray(strength, direction, z, self._activate(z), response, field, self.readout_variance)

    def _sides(self, ray: Ray, positive: Booleans, kink: Booleans) -> tuple[Booleans, Booleans]:
        """Where the inputs belong, given the stationary point: which are positive, which at the kink.

        An entry at the kink needs a v inside its box; a concave one that changes sides stops there.
        """
        h = ray.field @ ray.direction
        low, high, concave = self._box(h)
        crosses = ~kink & ((ray.preactivations > 0) != positive)
        if not kink.any():
            return np.where(concave, positive, ray.preactivations > 0), crosses & concave
        latent = ray.response.T @ h
        missing = latent - (self._slopes(positive) * h)[~kink] @ self.factor[~kink]
        v = np.zeros_like(h)
        v[kink] = missing @ np.linalg.pinv(self.factor[kink], rcond=1e-10)
        stays = kink & concave & (v >= low) & (v <= high)
        minus, plus = self.slopes
        left = np.abs(v - plus * h) < np.abs(v - minus * h)  # through the end of the box that v passed
        sides = np.where(kink, left, np.where(concave, positive, ray.preactivations > 0))
        return sides, stays | (crosses & concave)


def _unit(vectors: Array, otherwise: Array) -> Array:
    """The vectors (B, m) scaled to norm 1; where one vanishes, another."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norm > 0, vectors / np.maximum(norm, 1e-300), otherwise)
