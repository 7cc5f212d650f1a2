"""The convex dual problem on weighted particles, docs/theory.md (10o) and (10p).

Particles drawn for one t are reweighted for others nearby. The reweighted S is convex, and at its
minimum (5) holds identically on the weighted sample.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg
from scipy.special import logsumexp

from fltheory.meanfield.fractions import Mixing
from fltheory.numerics.validation import Array

_N_SELF_CONSISTENT = 20
_LOOSEST, _TIGHTEST = 0.05, 1e-8  # relative residuals of a Newton step, by conjugate gradients


Report = Callable[[float], None]


def exponent(activations: Array, field: Array, readout_variance: float) -> Array:
    """sigma_a^2 |t^T phi|^2 / 2 for each particle, (M,)."""
    return np.asarray(0.5 * readout_variance * ((activations @ field) ** 2).sum(1))


def drawn_together(activations: Array, fields: list[Array], readout_variance: float) -> Array:
    """``drawn_at`` of particles drawn in equal numbers at several t, as one sample of the mixture, (M,).

    Their log Z, up to that of the first, follow from the sample itself, self-consistently.
    """
    exponents = np.stack([exponent(activations, field, readout_variance) for field in fields], axis=1)
    log_partition = np.zeros(len(fields))
    for _ in range(_N_SELF_CONSISTENT):
        mixed = logsumexp(exponents - log_partition, axis=1)
        log_partition = logsumexp(exponents - mixed[:, None], axis=0)
        log_partition -= log_partition[0]
    return np.asarray(logsumexp(exponents - log_partition, axis=1) - math.log(len(fields)))


@frozen(eq=False)
class SampleDual:
    """S(t) on particles by reweighting, (10o); called with t it gives an ``Evaluation``.

    Attributes
    ----------
    activations
        phi of the particles, (M, P).
    drawn_at
        sigma_a^2 |t_0^T phi|^2 / 2 of each, for the t_0 that it was drawn at (see ``drawn_together``
        for several t_0), (M,).
    least_ess
        Relative effective sample size of the reweighting below which S is infinite.
    mixing
        What is imposed on the shares of groups of particles; None: nothing.
    """

    activations: Array
    drawn_at: Array
    targets: Array
    noise: float
    readout_variance: float
    least_ess: float = 0.5
    mixing: Mixing | None = None

    @cached_property
    def groups(self) -> Mixing:
        """The particles in their groups."""
        return Mixing.free(len(self.activations)) if self.mixing is None else self.mixing

    def __call__(self, field: Array) -> "SampleEvaluation":
        drive = self.activations @ field  # t^T phi, (M, m)
        log_weights = 0.5 * self.readout_variance * (drive**2).sum(1) - self.drawn_at
        weights = self.groups.weights(log_weights)
        growth = self.groups.log_sum(log_weights) - math.log(len(weights))
        if self.groups.evenness(weights) < self.least_ess:
            growth = math.inf  # the particles say nothing of this t: no step goes there
        value = growth + 0.5 * self.noise * float((field**2).sum()) - float((field * self.targets).sum())
        outputs = self.readout_variance * (self.activations.T @ (weights[:, None] * drive))
        gradient = self.noise * field - self.targets + outputs
        return SampleEvaluation(self, value, gradient, growth, weights, drive)


@frozen(eq=False)
class SampleEvaluation:
    """S and its derivatives at one t, with the particles' weights.

    Attributes
    ----------
    growth
        log Z(t), or what stands in its place where shares are imposed, relative to that of the law drawn
        from; infinite where the weights say nothing.
    weights, drive
        Of the particles: (M,), summing to 1, and t^T phi, (M, m).
    """

    dual: SampleDual
    value: float
    gradient: Array
    growth: float
    weights: Array
    drive: Array

    def newton_step(self) -> Array:
        """As accurately as the gradient deserves."""
        accuracy = 0.3 * float(np.abs(self.gradient).max())
        return self.solve(-self.gradient, tolerance=min(_LOOSEST, max(_TIGHTEST, accuracy)))

    def solve(self, right: Array, curvature: Array | None = None, *, tolerance: float = _TIGHTEST) -> Array:
        """(H + W W^T)^{-1} b, to a relative residual: the Hessian (10p) is applied, never written out.

        ``right`` is (P, m) or (P, m, k), ``curvature`` W (P m, r).
        """
        columns = right.reshape(*self.gradient.shape, -1)
        extra = np.empty((self.gradient.size, 0)) if curvature is None else curvature

        def apply(v: Array) -> Array:
            flat = v.reshape(self.gradient.size, -1)
            return self._hessian(v) + (extra @ (extra.T @ flat)).reshape(v.shape)

        found = conjugate_gradients(apply, columns, self._precondition, tolerance=tolerance)
        return found.reshape(right.shape)

    def _hessian(self, v: Array) -> Array:
        """H v for k columns v, (P, m, k)."""
        variance, phi = self.dual.readout_variance, self.dual.activations
        change = (phi @ v.reshape(len(v), -1)).reshape(-1, *v.shape[1:])  # (M, m, k)
        tilt = variance * np.einsum("sm,smk->sk", self.drive, change)
        change += self.drive[:, :, None] * self.dual.groups.centred(self.weights, tilt)[:, None, :]
        change *= self.weights[:, None, None]
        pushed = phi.T @ change.reshape(len(change), -1)
        return np.asarray(self.dual.noise * v + variance * pushed.reshape(v.shape))

    @cached_property
    def kernel(self) -> Array:
        """<phi phi^T>, (P, P)."""
        phi = self.dual.activations
        return np.asarray(phi.T @ (self.weights[:, None] * phi))

    def _precondition(self, right: Array) -> Array:
        flat = right.reshape(len(right), -1)
        return np.asarray(linalg.cho_solve(self._factor, flat).reshape(right.shape))

    @cached_property
    def _factor(self) -> tuple[Array, bool]:
        matrix = self.dual.readout_variance * self.kernel
        matrix[np.diag_indices_from(matrix)] += self.dual.noise + 1e-10 * np.trace(matrix) / len(matrix)
        return linalg.cho_factor(matrix)


def conjugate_gradients(
    apply: Callable[[Array], Array],
    right: Array,
    precondition: Callable[[Array], Array],
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Array:
    """Solve A x = b for a positive A and each of k right sides (..., k), to a relative residual."""

    def product(left: Array, right: Array) -> Array:
        return np.asarray(np.einsum("ik,ik->k", *(v.reshape(-1, v.shape[-1]) for v in (left, right))))

    x, residual = np.zeros_like(right), right
    direction = near = precondition(residual)
    power = product(residual, near)
    goal = tolerance**2 * product(right, right)
    for _ in range(max_iterations):
        if (product(residual, residual) <= goal).all():
            break
        image = apply(direction)
        length = power / np.maximum(product(direction, image), 1e-300)
        x, residual = x + length * direction, residual - length * image
        near = precondition(residual)
        power, previous = product(residual, near), power
        direction = near + (power / np.maximum(previous, 1e-300)) * direction
    return np.asarray(x)
