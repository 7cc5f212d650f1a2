"""Drift: how much of a representation is left after a while, neuron by neuron or up to their order."""

from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen
from scipy.optimize import linear_sum_assignment

from fltheory.coding.sampled import check_samples
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import (
    Array,
    Integers,
    check_choice,
    check_instance,
    check_integer,
    check_sequence,
    sealed,
)

if TYPE_CHECKING:
    from fltheory.network.samples import PosteriorSamples

_N_LAGS = 12  # chosen where none are given
_N_DRAWN = 8192  # neurons of a hidden layer
_N_ORIGINS = 8  # times from which a lag is measured, at most
_MODULO = ("nothing", "permutation")


@frozen(eq=False)
class Drift:
    """The overlap of representations a while apart, q_l(s) of docs/theory.md section 12.

    Attributes
    ----------
    lags
        s, in draws, rising, shape (s,).
    overlap
        Mean over chains, 1 at lag 0, shape (s,).
    standard_error
        From how far the chains differ, shape (s,); None for one chain.
    by_chain
        Shape (C, s).
    baseline
        The same between networks of different chains, which share nothing but the posterior: where the
        overlap ends if all drifts. None for one chain.
    """

    lags: Integers
    overlap: Array
    standard_error: Array | None
    by_chain: Array
    baseline: float | None


def overlap(samples: object, layer: int | None = None, lags: object = None, modulo: str = "nothing") -> Drift:
    """How alike the activations of a layer are a while apart, along the chains of some samples.

    The covariance across neurons of phi at two times over that at one time, summed over inputs, averaged
    over up to 8 first times. As a picture of learning it wants samples drawn by ``Langevin``.

    Parameters
    ----------
    samples
        Networks of some chains. All activations of the layer are held in memory.
    layer
        1 to L; L if None.
    lags
        In draws, whole numbers from 0 to D - 1; None: 0 and some from 1 to half of D.
    modulo
        "nothing": neuron by neuron. "permutation": neurons are matched anew at each pair of times, as they
        agree best; a value above ``baseline`` is what remains. Its time grows as the cube of the width.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the samples have one draw a chain.
    """
    chains = check_samples("samples", samples)
    layer = chains.model.check_layer(chains.model.n_hidden_layers if layer is None else layer, lowest=1)
    check_choice("modulo", modulo, _MODULO)
    steps = _check_lags(lags, chains.n_draws)
    x = _centred(chains, layer)
    by_chain = np.array([[_lagged(chain, lag, modulo) for lag in steps] for chain in x])
    n_chains = len(by_chain)
    error = None if n_chains == 1 else sealed(by_chain.std(0, ddof=1) / np.sqrt(n_chains))
    mean, baseline = sealed(by_chain.mean(0)), _baseline(x[:, -1], modulo)
    return Drift(sealed(np.array(steps, np.int64)), mean, error, sealed(by_chain), baseline)


def _check_lags(lags: object, n_draws: int) -> list[int]:
    if lags is None:
        spaced = np.geomspace(1, max(n_draws // 2, 1), _N_LAGS - 1).round().astype(int)
        return [0, *sorted({*spaced.tolist()} - {n_draws})]
    entries = check_sequence("lags", lags, check_integer, minimum=0, maximum=n_draws - 1)
    return sorted(set(entries))


def _centred(samples: "PosteriorSamples", layer: int) -> Array:
    """phi less its mean over the neurons of the network, (C, D, N, P)."""
    phi = samples.activations(layer)
    return np.asarray(phi - phi.mean(2, keepdims=True))


def _origins(n_draws: int, lag: int) -> list[int]:
    """First times of pairs, spread over the chain."""
    return sorted({int(begin) for begin in np.linspace(0, n_draws - 1 - lag, _N_ORIGINS)})


def _lagged(x: Array, lag: int, modulo: str) -> float:
    """The overlap of one chain x (D, N, P) at a lag."""
    pairs = [(x[begin], x[begin + lag]) for begin in _origins(len(x), lag)]
    shared = sum(shared_variance(a, b, modulo) for a, b in pairs)
    return shared / sum(0.5 * float((a**2).sum() + (b**2).sum()) for a, b in pairs)


def shared_variance(one: Array, other: Array, modulo: str = "nothing") -> float:
    """Sum over neurons and inputs of the product of two representations (N, P)."""
    if modulo == "nothing":
        return float((one * other).sum())
    match = matching(one, other)
    return float((one * other[match]).sum())


def matching(one: Array, other: Array) -> Integers:
    """The order of the neurons of ``other`` (N, q) in which they agree best with those of ``one``."""
    return np.asarray(linear_sum_assignment(one @ other.T, maximize=True)[1])


def _baseline(x: Array, modulo: str) -> float | None:
    """The overlap of each chain (C, N, P) with the next."""
    if len(x) == 1:
        return None
    pairs = list(zip(x, np.roll(x, 1, axis=0), strict=True))
    return sum(shared_variance(a, b, modulo) for a, b in pairs) / float((x**2).sum())


def overlap_limit(theory: object, layer: int | None = None) -> float:
    """What is left of the overlap after a long while, at infinite width.

    Neurons keep their code, or stay condensed, where the symmetry of their order is broken, and forget all
    else: sum_gamma P_gamma |<phi>_gamma - <phi>|^2 over the variance of phi, summed over inputs; with
    |phi_inf(z_j)|^2 of each condensed neuron in place of the branches. 0 where all drifts.

    Parameters
    ----------
    theory
        A solution.
    layer
        1 to L; L if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    solution: MeanFieldSolution = check_instance("theory", theory, MeanFieldSolution)
    model = solution.model
    layer = model.check_layer(model.n_hidden_layers if layer is None else layer, lowest=1)
    if layer < model.n_hidden_layers:
        return _hidden_limit(solution, layer)
    second = float(np.trace(solution.kernel(layer)))
    weights = np.array([branch.probability for branch in solution.branches])
    means = np.stack([branch.activations for branch in solution.branches])
    square = float(((weights @ means) ** 2).sum())  # of the mean over neurons
    between = float((weights * (means**2).sum(1)).sum()) - square
    condensed = sum(float((outlier.activations**2).sum()) for outlier in solution.outliers)
    return (between * (solution.symmetry(layer) == "broken") + condensed) / (second - square)


def _hidden_limit(solution: MeanFieldSolution, layer: int) -> float:
    """The same below the last layer, where the mean over neurons is that of drawn ones."""
    if solution.symmetry(layer) == "intact":
        return 0.0
    kept = solution.decomposition(layer).outliers  # branches, or condensed neurons
    is_condensed = not solution.model.nonlinearity.is_bounded
    total = solution.neurons(_N_DRAWN, layer).activations.sum(0)
    if is_condensed:  # they are among those drawn, but in the limit the mean is that of all others
        total = total - np.sqrt(_N_DRAWN) * kept.sum(0)
    square = float(((total / _N_DRAWN) ** 2).sum())
    between = float((kept**2).sum()) - square * (not is_condensed)
    return between / (float(np.trace(solution.kernel(layer))) - square)
