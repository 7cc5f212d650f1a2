"""The dual problem by weighted samples: any kernel, any bounded phi, no list of codes.

With the readout integrated out a neuron's law is pi_t(g) ~ N(g | 0, 1) exp(sigma_a^2 |t^T phi(F g)|^2 / 2),
z = F g. Particles drawn for one t are reweighted for others nearby, where the reweighted S is convex
and its minimum satisfies (5) on the weighted sample; then they move on by Hamiltonian Monte Carlo.
Branches are born while N T falls (docs/theory.md, section 5.3). The error is of order M^(-1/2).
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg
from scipy.special import logsumexp, softmax

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array

_TRUSTED_ESS = 0.5  # relative effective sample size of the reweighting, at least
_N_LEAPFROG, _N_SWEEPS = 8, 3
_ACCEPTANCE = 0.8
_LONGEST_STEP = 0.6
_HOT, _COOLING = 8.0, 0.7  # first N T, and the ratio of one to the next
_COLDEST = 1e-3  # from where the last step is to N T = 0
_FINALLY = 4  # times as many particles at the end as on the way
_MOST_ROUNDS = 40  # at one N T

Report = Callable[[float], None]


@frozen(eq=False)
class SampleDual:
    """S(t) on particles drawn at t_0, by reweighting, (10o); called with t it gives an ``Evaluation``.

    Attributes
    ----------
    activations
        phi of the particles, (M, P).
    origin
        t_0, (P, m).
    """

    activations: Array
    origin: Array
    targets: Array
    noise: float
    readout_variance: float

    @cached_property
    def _drawn_at(self) -> Array:
        return np.asarray(0.5 * self.readout_variance * ((self.activations @ self.origin) ** 2).sum(1))

    def __call__(self, field: Array) -> "SampleEvaluation":
        drive = self.activations @ field  # t^T phi, (M, m)
        log_weights = 0.5 * self.readout_variance * (drive**2).sum(1) - self._drawn_at
        weights = softmax(log_weights)
        growth = float(logsumexp(log_weights)) - math.log(len(weights))
        if 1.0 / (weights**2).sum() < _TRUSTED_ESS * len(weights):
            growth = math.inf  # the particles say nothing of this t: no step goes there
        value = growth + 0.5 * self.noise * float((field**2).sum()) - float((field * self.targets).sum())
        outputs = self.readout_variance * (self.activations.T @ (weights[:, None] * drive))
        gradient = self.noise * field - self.targets + outputs
        return SampleEvaluation(self, value, gradient, growth, weights, drive)


@frozen(eq=False)
class SampleEvaluation:
    """S and its derivatives at one t, with the particles' weights."""

    dual: SampleDual
    value: float
    gradient: Array
    growth: float  # log Z(t) - log Z(t_0)
    weights: Array
    drive: Array

    def newton_step(self) -> Array:
        """By conjugate gradients: the Hessian (10p) is applied, never written out."""
        dual, weights = self.dual, self.weights
        weighted = dual.activations * weights[:, None]
        kernel = dual.readout_variance * (weighted.T @ dual.activations)
        kernel[np.diag_indices_from(kernel)] += dual.noise + 1e-10 * np.trace(kernel) / len(kernel)
        preconditioner = linalg.cho_factor(kernel)

        def hessian(v: Array) -> Array:
            change = dual.activations @ v
            tilt = dual.readout_variance * (self.drive * change).sum(1)
            change = change + self.drive * (tilt - weights @ tilt)[:, None]
            return np.asarray(dual.noise * v + dual.readout_variance * (weighted.T @ change))

        return conjugate_gradients(
            hessian, -self.gradient, lambda r: np.asarray(linalg.cho_solve(preconditioner, r))
        )


def conjugate_gradients(
    apply: Callable[[Array], Array],
    right: Array,
    precondition: Callable[[Array], Array],
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Array:
    """Solve A x = b for a positive A, to a relative residual."""
    x, residual = np.zeros_like(right), right
    direction = near = precondition(residual)
    power = float((residual * near).sum())
    goal = tolerance * np.linalg.norm(right)
    for _ in range(max_iterations):
        if np.linalg.norm(residual) <= goal:
            break
        image = apply(direction)
        length = power / float((direction * image).sum())
        x, residual = x + length * direction, residual - length * image
        near = precondition(residual)
        power, previous = float((residual * near).sum()), power
        direction = near + (power / previous) * direction
    return np.asarray(x)


class Particles:
    """M neurons of the law at one t, which follow t as it changes.

    Attributes
    ----------
    latent
        g, (M, q).
    field
        t, (P, m).
    log_partition
        log Z(t), summed up along the way from t = 0.
    """

    def __init__(
        self,
        factor: Array,
        targets: Array,
        readout_variance: float,
        nonlinearity: Nonlinearity,
        *,
        n_particles: int,
        seed: int,
    ) -> None:
        self.factor, self.targets = factor, targets
        self.readout_variance, self.nonlinearity = readout_variance, nonlinearity
        self.rng = np.random.default_rng(seed)
        self.latent = self.rng.standard_normal((n_particles, factor.shape[1]))
        self.field = np.zeros_like(targets)
        self.log_partition = 0.0
        self.n_rounds = 0
        self._step = 0.2
        self.solution: SampleEvaluation | None = None
        self._drawn = self.latent

    @property
    def weighted(self) -> tuple[Array, Array]:
        """The particles on which the last solution holds, (M, q), and their weights (M,)."""
        assert self.solution is not None
        return self._drawn, self.solution.weights

    @property
    def activations(self) -> Array:
        """phi(F g), (M, P)."""
        return np.asarray(self.nonlinearity(self.latent @ self.factor.T))

    def cool(self, noise: float, *, tolerance: float, report: Report) -> bool:
        """Follow t down a path of N T to ``noise``, at last with more particles; whether all was solved."""
        if not all(self._settle(stage, tolerance, report) for stage in _path(noise)):
            return False
        self.latent = np.tile(self.latent, (_FINALLY, 1))
        for _ in range(_FINALLY * _N_SWEEPS):  # until the copies are independent inside their branches
            self._sweep()
        return self._settle(noise, tolerance, report)

    def _settle(self, noise: float, tolerance: float, report: Report) -> bool:
        """Solve at one N T: reweight as far as the particles reach, and move them, until they do."""
        for _ in range(_MOST_ROUNDS):
            dual = SampleDual(self.activations, self.field, self.targets, noise, self.readout_variance)
            found = minimise(dual, self.field, tolerance=tolerance, max_iterations=30)
            report(found.residual)
            self.n_rounds += 1
            self.solution = dual(found.x)
            self._drawn = self.latent
            self._follow(self.solution, found.x)
            if found.converged:
                return True
        return False

    def _follow(self, there: SampleEvaluation, field: Array) -> None:
        """Resample for a new t, and move."""
        self.log_partition += there.growth
        size = len(self.latent)
        positions = (self.rng.random() + np.arange(size)) / size
        chosen = np.searchsorted(np.cumsum(there.weights), positions)
        self.latent = self.latent[np.minimum(chosen, size - 1)]
        self.field = field
        for _ in range(_N_SWEEPS):
            self._sweep()

    def _sweep(self) -> None:
        """One Hamiltonian trajectory of every particle, its step adapted to the acceptance."""
        momentum = self.rng.standard_normal(self.latent.shape)
        step = self._step * self.rng.uniform(0.7, 1.3, (len(self.latent), 1))
        position = self.latent
        value, gradient = self._log_density(position)
        energy = value - 0.5 * (momentum**2).sum(1)
        for _ in range(_N_LEAPFROG):
            momentum = momentum + 0.5 * step * gradient
            position = position + step * momentum
            value, gradient = self._log_density(position)
            momentum = momentum + 0.5 * step * gradient
        change = value - 0.5 * (momentum**2).sum(1) - energy
        accepted = np.log(self.rng.random(len(change))) < change
        self.latent = np.where(accepted[:, None], position, self.latent)
        self._step = min(self._step * math.exp(0.5 * (accepted.mean() - _ACCEPTANCE)), _LONGEST_STEP)

    def _log_density(self, latent: Array) -> tuple[Array, Array]:
        z = latent @ self.factor.T
        drive = self.nonlinearity(z) @ self.field
        value = 0.5 * self.readout_variance * (drive**2).sum(1) - 0.5 * (latent**2).sum(1)
        pull = self.readout_variance * (drive @ self.field.T) * self.nonlinearity.derivative(z)
        return value, pull @ self.factor - latent


def _path(noise: float) -> list[float]:
    path = [max(_HOT, noise)]
    while path[-1] * _COOLING > max(noise, _COLDEST):
        path.append(path[-1] * _COOLING)
    return [*path, noise] if path[-1] > noise else path
