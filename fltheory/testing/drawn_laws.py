"""Laws on neurons drawn from a solution: an independent Monte Carlo check of its averages.

Errors are those of means over independent batches, so they include what weighted draws add. A mean
may be off by ``_SIGMAS`` of them plus what the engine's averages may be off. With 25 batches one of a
thousand independent entries is beyond seven of its errors once in three thousand solutions. Neurons
of the engine that solves by particles are its particles, so there these laws compare it with itself.
"""

from collections.abc import Callable, Iterator

import numpy as np

from fltheory.numerics.validation import Array
from fltheory.representation import Neurons
from fltheory.testing.laws import Law, differences
from fltheory.testing.solution_case import SolutionCase

_SIGMAS = 7.0
_SYSTEMATIC = 5.0  # error of averages that exact neurons may reveal, in units of the tolerance


def _mean_differs(
    what: str,
    batches: list[Neurons],
    total: Callable[[Neurons], Array],
    expected: Array,
    systematic: float,
) -> Iterator[str]:
    """Compare the mean over neurons of what ``total`` sums over them."""
    values = np.stack([total(batch) / len(batch.activations) for batch in batches])
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    allowed = _SIGMAS * error + systematic
    n = sum(len(batch.activations) for batch in batches)
    yield from differences(f"{what} over {n} drawn neurons", values.mean(0), expected, allowed)


def _excess(case: SolutionCase, total: Callable[[Neurons], Array]) -> Array:
    """What the condensed neurons of one batch add to a mean that is zero without them."""
    return total(case.condensed) / len(case.readout_layer[0].activations)


def _readouts(neurons: Neurons) -> Array:
    assert neurons.readouts is not None
    return neurons.readouts


def _output(neurons: Neurons) -> Array:
    return np.asarray(neurons.activations.T @ _readouts(neurons))


def _wrong_outputs(case: SolutionCase) -> Iterator[str]:
    limit = sum((np.outer(o.activations, o.readout) for o in case.theory.outliers), np.zeros_like(case.f))
    expected = case.f + _excess(case, _output) - limit  # condensed neurons reach the limit slowly
    allowed = _SYSTEMATIC * case.tolerance * case.size
    yield from _mean_differs("the mean of phi a^T", case.readout_layer, _output, expected, allowed)


def _wrong_kernels(case: SolutionCase) -> Iterator[str]:
    few, last = case.chosen, case.model.n_hidden_layers

    def square(neurons: Neurons) -> Array:
        return np.asarray(neurons.activations[:, few].T @ neurons.activations[:, few])

    for layer in range(1, last + 1):
        kernel = case.kernels[layer][np.ix_(few, few)]
        allowed = _SYSTEMATIC * case.tolerance * float(np.abs(kernel).max())
        batches = case.readout_layer if layer == last else case.drawn(layer)
        if layer == last:
            limit = (np.outer(o.activations[few], o.activations[few]) for o in case.theory.outliers)
            kernel = kernel + _excess(case, square) - sum(limit, np.zeros_like(kernel))
        what = f"layer {layer}: the mean of phi phi^T"
        yield from _mean_differs(what, batches, square, kernel, allowed)


def _wrong_means(case: SolutionCase) -> Iterator[str]:
    branches, allowed = case.theory.branches, _SYSTEMATIC * case.tolerance

    def readout(neurons: Neurons) -> Array:
        return np.asarray(_readouts(neurons).sum(0))

    def activation(neurons: Neurons) -> Array:
        return np.asarray(neurons.activations.sum(0))

    mean = np.asarray(sum(b.probability * b.readout for b in branches)) + _excess(case, readout)
    scale = np.sqrt(float(np.trace(case.second_moment)))
    yield from _mean_differs("the mean readout", case.readout_layer, readout, mean, allowed * scale)
    mean = np.asarray(sum(b.probability * b.activations for b in branches)) + _excess(case, activation)
    scale = np.sqrt(float(np.diagonal(case.kernels[-1]).max()))
    yield from _mean_differs("the mean activation", case.readout_layer, activation, mean, allowed * scale)


def _wrong_readouts(case: SolutionCase) -> Iterator[str]:
    """What a readout deviates from sigma_a^2 t^T phi(z) is N(0, sigma_a^2), whatever z: (3)."""
    variance, few = case.model.readout_variance, case.chosen

    def rest(neurons: Neurons) -> Array:
        return np.asarray(_readouts(neurons) - variance * neurons.activations @ case.t)

    spread = float(np.sqrt(variance))
    activity = float(np.sqrt(np.diagonal(case.kernels[-1]).max()))
    moments: tuple[tuple[str, Callable[[Neurons], Array], float], ...] = (
        ("the mean", lambda n: rest(n).sum(0), 1.0),
        ("the variance", lambda n: rest(n).T @ rest(n), spread),
        ("the covariance with phi", lambda n: n.activations[:, few].T @ rest(n), activity),
    )
    for what, moment, scale in moments:
        expected = _excess(case, moment)
        if what == "the variance":
            expected = expected + variance * np.eye(len(expected))
        what = f"{what} of a - sigma_a^2 t^T phi"
        allowed = _SYSTEMATIC * case.tolerance * spread * scale
        yield from _mean_differs(what, case.readout_layer, moment, expected, allowed)


def _wrong_neurons(case: SolutionCase) -> Iterator[str]:
    phi, last = case.model.nonlinearity, case.model.n_hidden_layers
    for layer in range(1, last + 1):
        neurons = case.theory.neurons(50, layer, case.seed)
        shape = (50, len(case.t))
        if neurons.activations.shape != shape or neurons.preactivations.shape != shape:
            yield f"layer {layer}: 50 neurons have activations of shape {neurons.activations.shape}"
        expected = phi(neurons.preactivations)
        yield from differences(f"layer {layer}: activations", neurons.activations, expected, 1e-9)
        if (neurons.readouts is None) != (layer < last):
            yield f"layer {layer} of {last}: readouts are {'missing' if layer == last else 'given'}"


DRAWN_LAWS: tuple[Law, ...] = (
    Law("neurons", "draws neurons with phi(z) and, in the last layer alone, readouts", _wrong_neurons),
    Law("drawn outputs", "has <phi a^T> = Y - N T t over the neurons that it draws", _wrong_outputs),
    Law("drawn kernels", "has <phi phi^T> equal to its kernels over drawn neurons", _wrong_kernels),
    Law(
        "drawn readouts", "draws readouts N(sigma_a^2 t^T phi, sigma_a^2) given activations", _wrong_readouts
    ),
    Law("drawn means", "has branches whose means are those of drawn neurons", _wrong_means),
)
LAZY_DRAWN_LAWS = tuple(law for law in DRAWN_LAWS if law.name in ("neurons", "drawn kernels", "drawn means"))
