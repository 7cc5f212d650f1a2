"""Linear networks of any depth, at infinite width or with the terms of order P / N, docs/theory.md section 4.

phi(z) = c z is the identity with sigma_l^2 -> c^2 sigma_l^2 (l >= 2) and sigma_a^2 -> c^2
sigma_a^2, so all of this module works with those rescaled variances and with the readout c a.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.growth import RANK_CUT, GrowthEquation, matrix_function, spectrum
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.model import Model
from fltheory.numerics.validation import Array

_ROUNDING = 1e-9  # residual that is not asked to be lower
_IN_RANGE = 1e-8  # relative part of Y outside the range of K_0 that is put down to rounding


@frozen(eq=False)
class LinearPosterior(NeuronPosterior):
    """Gaussian neurons (10) in every layer.

    Attributes
    ----------
    growth
        R = U / sigma_a^2, the factor by which learning stretches the readout, (m, m).
    field
        t, (P, m).
    inverse_width
        1 / N where the terms of order P / N are kept, (9') and section 4.4; 0 at infinite width.
    """

    model: Model
    growth: Array
    field: Array
    inverse_width: float = 0.0

    @property
    def slope(self) -> float:
        """c of phi(z) = c z."""
        return float(self.model.nonlinearity(np.ones(1))[0])

    @cached_property
    def variances(self) -> tuple[float, ...]:
        """sigma_1^2, then c^2 sigma_l^2 of the layers above."""
        first, *rest = self.model.weight_variances
        return first, *(self.slope**2 * v for v in rest)

    def stretch(self, layer: int) -> Array:
        """U_l = sigma_a^2 prod_{j>l} sigma_j^2 R^(L-l+1), (m, m): (10')."""
        above = self.slope**2 * self.model.readout_variance * math.prod(self.variances[layer:])
        power = self.model.n_hidden_layers - layer + 1
        return np.asarray(above * np.linalg.matrix_power(self.growth, power))

    @cached_property
    def _responses(self) -> list[Array]:
        """V_l with K_0 t U_1 = K_{l-1} t V_l, layers 1 to L, (m, m) each: U_l at infinite width, (9d)."""
        output = self.stretch(1) @ self.field.T @ self.model.input_kernel @ self.field
        found = [self.stretch(1)]
        for layer in range(1, self.model.n_hidden_layers):
            inner = np.linalg.solve(self.stretch(layer), output @ found[-1])
            found.append(found[-1] @ np.linalg.inv(np.eye(len(inner)) + inner) / self.variances[layer])
        return found

    def _tilt(self, layer: int) -> Array:
        """V_l U_l^{-1} V_l, by which t bends K_{l-1} into K_l, (m, m): (9d)."""
        if self.inverse_width == 0.0:
            return self.stretch(layer)
        response = self._responses[layer - 1]
        return _symmetric(response @ np.linalg.solve(self.stretch(layer), response))

    @cached_property
    def _parts(self) -> list[KernelParts]:
        """<z z^T> of layers 0 (K_0 itself) to L, as the prior's kernel and the learned directions."""
        parts = [KernelParts(self.model.input_kernel, np.zeros((0, len(self.field))))]
        for layer in range(1, self.model.n_hidden_layers + 1):
            below = parts[-1]
            variance = self.variances[layer - 1] if layer > 1 else 1.0  # K_0 contains sigma_1^2
            kernel = variance * below.total
            learned = np.linalg.cholesky(self._tilt(layer)).T @ self.field.T @ kernel
            rows = np.concatenate([math.sqrt(variance) * below.patterns, learned])
            _, values, directions = np.linalg.svd(rows, full_matrices=False)
            m = self.field.shape[1]  # all rows lie in the m directions K_0 t
            patterns = values[:m, None] * directions[:m]
            parts.append(KernelParts(variance * below.bulk, patterns))
        return parts

    def kernel_below(self, layer: int) -> Array:
        """K_{l-1}, the covariance of z^l at the prior's weights, (P, P)."""
        variance = self.variances[layer - 1] if layer > 1 else 1.0
        return np.asarray(variance * self._parts[layer - 1].total)

    def kernel_parts(self, layer: int) -> KernelParts:
        parts, slope = self._parts[layer], self.slope
        return KernelParts(slope**2 * parts.bulk, slope * parts.patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        if self.inverse_width > 0.0:
            return np.asarray(self.field @ self._conjugate(layer) @ self.field.T / self.slope**2)
        if layer == self.model.n_hidden_layers:
            return np.asarray(self.model.readout_variance * self.field @ self.field.T)
        # the identity network's Kt_l is conjugate to z z^T, so that of phi = c z has 1 / c^2
        scale = self.variances[layer] / self.slope**2
        return np.asarray(scale * self.field @ self.stretch(layer + 1) @ self.field.T)

    def _conjugate(self, layer: int) -> Array:
        """What tilts z^l ~ N(0, K_{l-1}) is exp(z^T t (this) t^T z / 2), (m, m): (9e)."""
        response = self._responses[layer - 1]
        output = self.stretch(1) @ self.field.T @ self.model.input_kernel @ self.field @ response
        return _symmetric(response @ np.linalg.solve(self.stretch(layer) + output, response))

    @cached_property
    def branches(self) -> BranchTable:
        n, m = self.field.shape
        covariance = self.model.readout_variance * self.growth
        return BranchTable(np.ones(1), np.zeros((1, m)), covariance[None], np.zeros((1, n)))

    @cached_property
    def action(self) -> float:
        """S of (8), or (9a) at finite width."""
        noise, task = self.model.scaled_temperature, self.model.task
        if math.isinf(noise):
            return 0.0
        value = 0.5 * noise * np.sum(self.field**2) - np.sum(self.field * task.targets)
        value += 0.5 * np.linalg.slogdet(self.growth)[1]
        if self.inverse_width > 0.0:
            return self._action_at_width
        for layer in range(1, self.model.n_hidden_layers):
            variance, stretch = self.variances[layer], self.stretch(layer + 1)
            inner = self.field.T @ self.kernel_below(layer) @ self.field @ stretch
            value -= 0.5 * np.linalg.slogdet(np.eye(len(inner)) - variance * inner)[1]
            kernel = variance * self._parts[layer].total
            value -= 0.5 * np.trace(self.field.T @ kernel @ self.field @ stretch)
        return float(value)

    @property
    def _action_at_width(self) -> float:
        """(9a), the log evidence over N, without constants."""
        noise, targets = self.model.scaled_temperature, self.model.task.targets
        kappa, _ = spectrum(self.model.input_kernel)
        response = np.multiply.outer(kappa, np.linalg.eigvalsh(self.stretch(1))) + noise
        log_det = np.log(response).sum()
        if noise > 0.0:  # where K_0 is zero there is noise alone
            log_det += math.log(noise) * (targets.size - response.size)
        wishart = np.linalg.slogdet(self.growth)[1] - np.trace(self.growth) + len(self.growth)
        value = -np.sum(self.field * targets) - self.inverse_width * log_det
        return float(0.5 * (value + self.model.n_hidden_layers * wishart))

    @cached_property
    def residual(self) -> float:
        """Largest entry of Y - N T t - sigma_a^2 K_L t, zero at the prior.

        At finite width the last term is K_0 t U_1 with U_1 as (10') gives it: of the two equations
        (5) only the first holds, and (10') takes the place of the second.
        """
        if math.isinf(self.model.scaled_temperature):
            return 0.0
        if self.inverse_width > 0.0:
            return self._residual_at_width
        kernel = self.kernel_parts(self.model.n_hidden_layers).total
        gap = self.model.task.targets - self.model.scaled_temperature * self.field
        return float(np.abs(gap - self.model.readout_variance * kernel @ self.field).max())

    @property
    def _residual_at_width(self) -> float:
        noise, base = self.model.scaled_temperature, self.stretch(1) @ np.linalg.inv(self.growth)
        kappa, modes = spectrum(self.model.input_kernel)
        targets = self.model.task.targets
        stretch = LinearPosterior(self.model, np.eye(len(base)), self.field).stretch(1)[0, 0]
        equation = GrowthEquation(
            kappa, modes.T @ targets, noise, stretch, self.model.n_hidden_layers, self.inverse_width
        )
        right, lost = equation.sides(matrix_function(np.log, self.growth))
        output = self.model.input_kernel @ self.field @ base @ (right - lost)
        return float(np.abs(targets - noise * self.field - output).max())

    @property
    def certificate(self) -> float:
        """sigma_a^2 times the maximum (14): the largest eigenvalue of 1 - R^{-1}.

        At finite width that of 1 - S U^{-1}, S being what the other neurons leave of a readout's
        prior covariance, (9e).
        """
        if self.inverse_width > 0.0:
            last = self.model.n_hidden_layers
            fit = self.stretch(1) @ self.field.T @ self.model.input_kernel @ self.field
            fit = _symmetric(fit @ self._responses[-1])
            root = np.linalg.cholesky(np.linalg.inv(self.stretch(last)))
            return float(1.0 - 1.0 / (1.0 + np.linalg.eigvalsh(root.T @ fit @ root).max()))
        return float(1.0 - 1.0 / np.linalg.eigvalsh(self.growth).max())

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        n_samples, m = self.field.shape
        noise = rng.standard_normal((n, n_samples))
        if layer < self.model.n_hidden_layers:
            return noise @ _root(self._parts[layer].total), None
        kernel = self.kernel_below(layer)
        readouts = rng.standard_normal((n, m)) @ _root(self.stretch(layer))  # of c a
        field = self.field
        if self.inverse_width > 0.0:
            field = field @ self._responses[-1] @ np.linalg.inv(self.stretch(layer))
        return readouts @ field.T @ kernel + noise @ _root(kernel), readouts / self.slope

    def training_variance(self) -> Array:
        kernel = self.model.input_kernel
        return self._variance(kernel, np.diagonal(kernel))

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        mean = inputs.cross @ self.field @ self.stretch(1)
        return mean, self._variance(inputs.cross, np.diagonal(inputs.own))

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        own, cross = inputs.own, inputs.cross
        train = self.model.input_kernel
        for lower in range(1, layer + 1):
            variance = self.variances[lower - 1] if lower > 1 else 1.0
            own, cross, train = variance * own, variance * cross, variance * train
            learned = self.field @ self._tilt(lower) @ self.field.T
            own = own + cross @ learned @ cross.T
            cross = cross + cross @ learned @ train
            train = self._parts[lower].total
        return np.asarray(self.slope**2 * own)

    def _variance(self, cross: Array, own: Array) -> Array:
        """N times the variance of the outputs at inputs with K_0 rows ``cross`` and diagonal ``own``.

        Given the layers above, the first layer is a Gaussian process of covariance U_1 K_0 / N.
        Fluctuations of U_1 add a term of the same order at T > 0, known for L = 1.
        """
        noise = self.model.scaled_temperature
        stretch, outputs = np.linalg.eigh(self.stretch(1))  # u_r and their directions
        prior = own[:, None] * stretch
        if math.isinf(noise):
            return np.asarray(prior @ (outputs**2).T)
        kappa, modes = spectrum(self.model.input_kernel)
        along = cross @ modes  # (n, k)
        response = 1.0 / (np.multiply.outer(kappa, stretch) + noise)  # (k, r)
        process = prior - (along**2) @ (response * stretch**2)
        covariance = np.einsum("xr,rs->xrs", process, np.eye(len(stretch)))
        if self.model.n_hidden_layers == 1 and noise > 0:
            covariance = covariance + self._fluctuation(kappa, modes, along, response, stretch, outputs)
        return np.asarray(np.einsum("ir,xrs,is->xi", outputs, covariance, outputs))

    def _fluctuation(
        self, kappa: Array, modes: Array, along: Array, response: Array, stretch: Array, outputs: Array
    ) -> Array:
        """The part of (16) from fluctuations of U at L = 1, in U's eigenbasis: (n, m, m).

        g = phi a^T is a Gaussian of covariance K_0 U plus (K_0 t) xi, Cov xi = U U + its transpose.
        """
        m, noise = len(stretch), self.model.scaled_temperature
        field = modes.T @ self.field @ outputs  # t in both eigenbases, (k, j)
        slope = noise * np.einsum("xk,kj,kr->xrj", along, field, response)
        gram = np.einsum("k,ki,kj,kr->rij", kappa**2, field, field, response)
        eye = np.eye(m)
        wide = np.outer(stretch, stretch)  # of U; wider at finite width, by log det C in (9a)
        wide /= 1.0 - self.inverse_width * wide * np.einsum("k,kj,kr->jr", kappa**2, response, response)
        spread = np.einsum("jr,ji,rs->rjsi", wide, eye, eye)
        spread += np.einsum("jr,js,ri->rjsi", wide, eye, eye)
        spread = spread.reshape(m * m, m * m)
        precision = np.einsum("rij,rs->risj", gram, eye).reshape(m * m, m * m)
        posterior = spread @ np.linalg.inv(np.eye(m * m) + precision @ spread)
        posterior = posterior.reshape(m, m, m, m)
        return np.asarray(np.einsum("xrj,rjsi,xsi->xrs", slope, posterior, slope, optimize=True))


def _root(matrix: Array) -> Array:
    """The symmetric square root of a positive matrix, rounding errors of its spectrum cut."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def solve_linear(
    model: Model,
    *,
    tolerance: float,
    max_iterations: int,
    report: Callable[[float], None],
    finite_width: bool = False,
) -> tuple[LinearPosterior, int]:
    """The linear theory of a model, with the terms of order P / N or without, and how many steps it took.

    Raises
    ------
    ValueError
        At T = 0 with targets outside the range of K_0, naming its rank; or with targets that leave
        an output free where the width is not above that rank.
    ConvergenceError
        If the residual of (5) stays above the tolerance.
    """
    targets, noise = model.task.targets, model.scaled_temperature
    inverse_width = 1.0 / model.width if finite_width else 0.0
    prior = LinearPosterior(model, np.eye(targets.shape[1]), np.zeros_like(targets), inverse_width)
    if math.isinf(noise):
        return prior, 0
    kappa, modes = spectrum(model.input_kernel)
    projected = modes.T @ targets
    outside = targets - modes @ projected
    if noise == 0.0:
        _check_range(model, outside, len(kappa))
        if finite_width:
            _check_width(model, projected)
    equation = GrowthEquation(
        kappa, projected, noise, prior.stretch(1)[0, 0], model.n_hidden_layers, inverse_width
    )
    log_growth, steps = equation.solve(max_iterations, report)
    fields, _, vectors = equation.fields(log_growth)
    field = modes @ fields @ vectors.T
    if noise > 0.0:
        field = field + outside / noise
    solution = LinearPosterior(model, matrix_function(np.exp, log_growth), field, inverse_width)
    if not solution.residual < max(tolerance, _ROUNDING):
        raise ConvergenceError(
            f"the linear theory stopped with residual {solution.residual:.2e} above {tolerance:.1e} "
            f"after {steps} steps; try a larger tolerance or temperature",
            last=solution,
        )
    return solution, steps


def _symmetric(matrix: Array) -> Array:
    """Of a product of matrices that commute but for rounding."""
    return np.asarray(0.5 * (matrix + matrix.T))


def _check_width(model: Model, projected: Array) -> None:
    """Refuse N <= rank K_0 where some output is zero: (9') then asks for R <= 0 there."""
    rank, m = projected.shape
    learned = int(np.linalg.matrix_rank(projected, tol=RANK_CUT * np.abs(projected).max(initial=0.0) * rank))
    if model.width <= rank and learned < m:
        raise ValueError(
            f"width: expected above {rank}, the rank of K_0, since the targets leave {m - learned} of {m} "
            f"directions of the outputs at zero and a narrower network has no other readouts there; "
            f"got {model.width} at T = 0"
        )


def _check_range(model: Model, outside: Array, rank: int) -> None:
    targets = model.task.targets
    if np.abs(outside).max() > _IN_RANGE * np.abs(targets).max():
        raise ValueError(
            f"temperature: expected above 0, since a linear network cannot fit these targets exactly: K_0 "
            f"has rank {rank} of {len(targets)} and they lie outside its range "
            f"(relative distance {np.linalg.norm(outside) / np.linalg.norm(targets):.2g}); got 0"
        )
