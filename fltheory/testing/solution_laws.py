"""The laws of a solution of the theory: docs/theory.md section 10, as far as one solution shows them."""

from collections.abc import Iterator

import numpy as np

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, check_instance, check_integer, check_real
from fltheory.testing.drawn_laws import DRAWN_LAWS
from fltheory.testing.laws import Law, differences, hold
from fltheory.testing.solution_case import SolutionCase, default_tolerance

_IDENTITY = 1e-9  # of statements about the same numbers, relative
_NEGATIVE = 1e-6  # eigenvalue that is put down to rounding, relative
_AS_NEW = 1e-4  # of outputs, where training inputs are asked for as new ones
_ESTIMATED = 0.15  # of variances that are estimated from thousands of drawn neurons: 3 % from seed to seed
_N_NEW = 6  # of which few are asked: each costs a solve with all outputs
_FEATURE_LEARNING = (
    "matrix virial",
    "action",
    "conjugate kernel",
    "homogeneity",
    "drawn outputs",
    "drawn readouts",
)


def check_solution(theory: MeanFieldSolution, tolerance: float | None = None, seed: int = 0) -> None:
    """Hold a solution at infinite width to all ``SOLUTION_LAWS``.

    Nothing is solved again. Lazy solutions are held to the laws that hold for them.

    Parameters
    ----------
    theory
        The solution.
    tolerance
        Relative accuracy of its averages. None: that of its engine, 1e-6 for closed forms, 2e-3 for
        quadrature, 5e-3 for EP and particles. Identities between the numbers of one solution are
        held to rounding, averages over drawn neurons to seven standard errors plus five tolerances.
    seed
        Of the neurons that are drawn.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    LawViolation
        An ``AssertionError`` that says which laws fail, and by how much.
    """
    check_instance("theory", theory, MeanFieldSolution)
    if tolerance is None:
        tolerance = default_tolerance(theory)
    tolerance = check_real("tolerance", tolerance, minimum=0.0, exclusive=True)
    case = SolutionCase(theory, tolerance, check_integer("seed", seed, minimum=0))
    lazy = theory.model.is_lazy
    laws = [law for law in SOLUTION_LAWS if not (lazy and law.name in _FEATURE_LEARNING)]
    hold(case, laws, f"the solution {theory!r}")


# The laws ----------------------------------------------------------------------------------------


def _inconsistency(case: SolutionCase) -> Iterator[str]:
    """(5), law 1."""
    output = case.model.readout_variance * case.kernels[-1] @ case.t
    yield from differences("sigma_a^2 K_L t", output, case.f, case.tolerance * case.size)


def _virial(case: SolutionCase) -> Iterator[str]:
    """Law 2."""
    second, right = case.second_moment / case.model.readout_variance, case.f.T @ case.t
    allowed = case.tolerance * max(1.0, float(np.abs(second).max()), float(np.abs(right).max()))
    yield from differences("(Y - N T t)^T t, which is symmetric,", right, right.T, allowed)
    yield from differences("<a a^T> / sigma_a^2 - 1", second - np.eye(len(second)), right, allowed)


def _wrong_kernels(case: SolutionCase) -> Iterator[str]:
    for layer, kernel in enumerate(case.kernels):
        yield from _not_positive(f"kernel({layer})", kernel)


def _wrong_decomposition(case: SolutionCase) -> Iterator[str]:
    for layer in range(1, case.model.n_hidden_layers + 1):
        parts, kernel = case.theory.decomposition(layer), case.kernels[layer]
        together = parts.bulk + parts.outliers.T @ parts.outliers
        allowed = _IDENTITY * float(np.abs(kernel).max())
        yield from differences(f"bulk and outliers of layer {layer}, together,", together, kernel, allowed)
        yield from _not_positive(f"the bulk of layer {layer}", parts.bulk, np.abs(kernel).max())


def _wrong_branches(case: SolutionCase) -> Iterator[str]:
    branches = case.theory.branches
    shares = np.array([b.probability for b in branches])
    if not (shares > 0).all() or abs(shares.sum() - 1.0) > _IDENTITY:
        yield f"probabilities of branches are {shares}, expected positive, of sum 1, got {shares.sum():.10g}"
    if (np.diff(shares) > 0).any():
        yield f"probabilities of branches are {shares}, expected the largest first"
    for i, branch in enumerate(branches):
        yield from _not_positive(f"readout_covariance of branch {i}", branch.readout_covariance)
    mean = np.asarray(sum(b.probability * b.readout for b in branches))
    expected = case.second_moment - np.outer(mean, mean)
    allowed = 1e-6 * float(np.abs(expected).max())
    yield from differences("readout_covariance", case.theory.readout_covariance, expected, allowed)


def _wrong_certificate(case: SolutionCase) -> Iterator[str]:
    """(14)."""
    certificate, bounded = case.theory.certificate, case.model.nonlinearity.is_bounded
    if (certificate is None) != bounded:
        yield f"certificate is {certificate} although phi is {'' if bounded else 'not '}bounded"
    elif certificate is not None and not certificate <= 1.0 + case.tolerance:
        yield f"certificate is {certificate:.8g}, above 1: another condensed neuron lowers the free energy"
    elif certificate is not None and case.theory.outliers and certificate < 1.0 - 10 * case.tolerance:
        yield f"certificate is {certificate:.8g}, below 1, although there are condensed neurons"


def _wrong_outliers(case: SolutionCase) -> Iterator[str]:
    """Law 21."""
    inverse = np.linalg.pinv(case.covariance_below(case.model.n_hidden_layers), hermitian=True)
    minus, plus = case.model.nonlinearity.asymptotic_slopes
    for i, outlier in enumerate(case.theory.outliers):
        a, z, phi = outlier.readout, outlier.preactivations, outlier.activations
        expected = plus * np.maximum(z, 0.0) + minus * np.minimum(z, 0.0)
        yield from differences(f"activations of outlier {i}", phi, expected, _IDENTITY * np.abs(phi).max())
        cost = float(a @ a) / case.model.readout_variance
        allowed = 10 * case.tolerance * cost
        yield from differences(f"z^T K^-1 z of outlier {i}", z @ inverse @ z, cost, allowed)
        yield from differences(f"a^T t^T phi of outlier {i}", a @ case.t.T @ phi, cost, allowed)


def _wrong_training_outputs(case: SolutionCase) -> Iterator[str]:
    """Law 19."""
    known = case.theory.predict()
    yield from differences("predict().mean", known.mean, case.f, _IDENTITY * case.size)
    if not (np.isfinite(known.variance) & (known.variance >= 0)).all():
        yield f"predict().variance is {known.variance.min():.3g} somewhere"


def _wrong_new_outputs(case: SolutionCase) -> Iterator[str]:
    few = case.chosen[:: max(1, len(case.chosen) // _N_NEW)]
    inputs, known = case.model.task.inputs[few], case.theory.predict()
    new = case.theory.predict(inputs)
    yield from differences("predict(inputs).mean", new.mean, known.mean[few], _AS_NEW * case.size)
    if not (np.isfinite(new.variance) & (new.variance >= 0)).all():
        yield f"predict(inputs).variance is {new.variance.min():.3g} somewhere"
    relative = case.tolerance if case.is_closed_form else _ESTIMATED
    allowed = relative * np.abs(known.variance[few]) + 1e-6 * case.size**2 / case.model.width
    yield from differences("predict(inputs).variance", new.variance, known.variance[few], allowed)
    for layer, kernel in enumerate(case.kernels):
        allowed = 10 * case.tolerance * np.abs(kernel).max()
        expected = kernel[np.ix_(few, few)]
        yield from differences(
            f"kernel({layer}, inputs)", case.theory.kernel(layer, inputs), expected, allowed
        )


def _wrong_action(case: SolutionCase) -> Iterator[str]:
    """Law 16, and its second part made tighter: the logarithm of a mean is below the tilted mean.

    log Z <= <V> for the exponent V of (4), so that every bracket of (8) is at most zero and S at
    most -tr t^T Y / 2. At L = 1 Jensen's inequality bounds S at this t, not just at the best one.
    """
    action, noise, t = -case.theory.free_energy, case.model.scaled_temperature, case.t
    if np.isinf(noise):
        yield from differences("the free energy of the prior", case.theory.free_energy, 0.0, _IDENTITY)
        return
    y, kernel = case.model.task.targets, case.model.readout_variance * case.prior_kernel
    lowest = -0.5 * _quadratic(kernel + noise * np.eye(len(y)), y)
    highest = -0.5 * float((t * y).sum())
    slack = case.tolerance * (abs(lowest) + abs(highest)) + _IDENTITY
    if case.model.n_hidden_layers == 1:
        lowest = 2 * highest + 0.5 * float((t * (kernel @ t + noise * t)).sum())
    if not lowest - slack <= action <= highest + slack:
        yield f"S = -free_energy is {action:.8g}, expected from {lowest:.8g} to {highest:.8g}"


def _wrong_conjugate_kernels(case: SolutionCase) -> Iterator[str]:
    last = case.model.n_hidden_layers
    for layer in range(1, last + 1):
        kernel = case.theory.conjugate_kernel(layer)
        allowed = _IDENTITY * float(np.abs(kernel).max())
        yield from differences(f"conjugate_kernel({layer}), which is symmetric,", kernel, kernel.T, allowed)
    expected = case.model.readout_variance * case.t @ case.t.T
    allowed = _IDENTITY * float(np.abs(expected).max())
    yield from differences(f"conjugate_kernel({last})", case.theory.conjugate_kernel(last), expected, allowed)


def _wrong_homogeneity(case: SolutionCase) -> Iterator[str]:
    """Law 8: what the layers hand down is the same in every layer."""
    if not _is_homogeneous(case.model.nonlinearity):
        return
    expected = float((case.t * case.f).sum())
    for layer in range(1, case.model.n_hidden_layers + 1):
        trace = float((case.theory.conjugate_kernel(layer) * case.kernels[layer]).sum())
        what = f"tr Kt_{layer} <phi phi^T>_{layer}"
        yield from differences(what, trace, expected, case.tolerance * abs(expected) + _IDENTITY)


SOLUTION_LAWS: tuple[Law, ...] = (
    Law("self-consistency", "obeys (5), Y - N T t = sigma_a^2 K_L t", _inconsistency),
    Law("matrix virial", "obeys law 2, <a a^T> / sigma_a^2 - 1 = Y^T t - N T t^T t", _virial),
    Law("kernels", "has symmetric kernels without negative eigenvalues", _wrong_kernels),
    Law("decomposition", "has kernels that are the sum of their parts", _wrong_decomposition),
    Law("branches", "has shares that sum to 1, and branches that add up to U", _wrong_branches),
    Law("certificate", "obeys (14): no neuron more would lower the free energy", _wrong_certificate),
    Law("outliers", "obeys law 21, |a|^2 / sigma_a^2 = z^T K^-1 z = a^T t^T phi", _wrong_outliers),
    Law("training outputs", "predicts Y - N T t on the training inputs, law 19", _wrong_training_outputs),
    Law("new inputs", "answers for training inputs given as new ones as for known ones", _wrong_new_outputs),
    Law("action", "has an S within the bounds of law 16", _wrong_action),
    Law("conjugate kernel", "has Kt_L = sigma_a^2 t t^T, (4a)", _wrong_conjugate_kernels),
    Law("homogeneity", "obeys law 8: tr Kt_l K_l is the same in all layers", _wrong_homogeneity),
    *DRAWN_LAWS,
)
"""What ``check_solution`` holds a solution to, as far as it applies to it."""


# What they need ----------------------------------------------------------------------------------


def _not_positive(what: str, matrix: Array, scale: float | None = None) -> Iterator[str]:
    size = float(np.abs(matrix).max()) if scale is None else float(scale)
    yield from differences(f"{what}, which is symmetric,", matrix, matrix.T, _IDENTITY * size)
    lowest = float(np.linalg.eigvalsh(matrix)[0])
    if not lowest >= -_NEGATIVE * size:
        yield f"{what} has the eigenvalue {lowest:.3g}, of largest entry {size:.3g}"


def _quadratic(matrix: Array, y: Array) -> float:
    """tr y^T matrix^{-1} y, without what is outside the range of a singular matrix."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-12 * values[-1]
    return float(((vectors[:, kept].T @ y) ** 2 / values[kept, None]).sum())


def _is_homogeneous(phi: Nonlinearity) -> bool:
    z = np.linspace(-3.0, 3.0, 13)
    return all(np.allclose(phi(c * z), c * np.asarray(phi(z)), atol=1e-12) for c in (0.5, 3.0))
