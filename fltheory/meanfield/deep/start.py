"""First guesses of all layers of a deep network: kernels of neurons that code for classes, in part."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from attrs import evolve, frozen
from scipy.optimize import brentq

from fltheory.meanfield.branches import code_patterns, neuron_states
from fltheory.meanfield.deep.blocks import ClassBlocks
from fltheory.meanfield.deep.equations import DeepEquations, DeepState
from fltheory.meanfield.deep.layer import Layer, LayerPoints, LayerState
from fltheory.numerics.validation import Array, Integers

_N_RANDOM = 16  # random starts in the search for modes
_SATURATION = 0.8  # share of phi's range between neurons that are and are not active
_RADIUS = 1.5  # of a step in t on the same points,
_BACK, _SHORTER, _LONGER = 0.7, 0.5, 1.5  # shorter where a step takes back as much of the one before
_REACHED = 1e-2  # residual at which a step is a whole one
_MOST_STEPS, _SETTLED = 30, 0.05  # such steps, and one that is the last
_SINGULAR, _FITTED = 1e-6, 1e-3  # relative singular value that is zero; what may be missed of targets
_MOST = 0.9  # share of codes in a kernel
_WEAK = 1e-3  # how exactly a weaker message is known
_RISE = 1.5  # power of the depth with which kernels go from the prior's to those of codes


def guess(
    equations: DeepEquations,
    strength: float,
    codes: Array,
    n_points: int,
    seed: int,
    *,
    is_weakened: bool = False,
) -> DeepState | None:
    """All layers with kernels that are in part the prior's and in part those of neurons on codes.

    Each layer answers to the kernel below and the message from above, with kernels not yet consistent.

    Parameters
    ----------
    strength
        0: the prior's kernels; 1: those of neurons on codes would be reached in the readout layer.
    codes
        0 or 1 a class, (k, G), all as common.
    is_weakened
        Whether messages are made so much weaker that layers do not overshoot their kernels: under the
        message itself all neurons may go over to one code. None if none needs to be.
    """
    depth, variances = len(equations.weight_variances), equations.weight_variances
    shares = [min(strength * ((layer + 1) / depth) ** _RISE, _MOST) for layer in range(depth - 1)]
    kernels = _kernels(equations, shares, codes)
    field, layer = _converged(equations, kernels[-1], n_points, seed)
    drawn = [draw(layer, equations, depth - 1, n_points, seed)]
    state, conjugates, least = layer.at(drawn[0]), list[ClassBlocks](), 1.0
    for index in range(depth - 2, -1, -1):
        message = equations.symmetry.of_blocks(state.message).scaled(variances[index + 1])
        answer = _Answer(equations, index, message, kernels[index - 1] if index else None, n_points, seed)
        wanted = message.trace_with(kernels[index], equations.groups.counts) / variances[index + 1]
        factor = answer.factor(wanted) if is_weakened else 1.0
        least = min(least, factor)
        points, state = answer(factor)
        conjugates, drawn = [message.scaled(factor), *conjugates], [points, *drawn]
    if is_weakened and least == 1.0:
        return None
    on_points = evolve(equations, points=tuple(drawn))
    return on_points.solve(on_points.pack(kernels, conjugates), field)


@frozen(eq=False)
class _Answer:
    """What a hidden layer makes of a message, given the kernel below, and of weaker ones."""

    equations: DeepEquations
    index: int
    message: ClassBlocks
    below: ClassBlocks | None
    n_points: int
    seed: int

    def __call__(self, factor: float) -> tuple[LayerPoints, LayerState]:
        """Points, and the layer on them, under a multiple of the message."""
        layer = self.equations.hidden_layer(self.message.scaled(factor), self.below)
        points = draw(layer, self.equations, self.index, self.n_points, self.seed)
        return points, layer.at(points)

    def factor(self, wanted: float) -> float:
        """The largest multiple, up to 1, at which the message's overlap with the kernel is as wanted."""
        counts = self.equations.groups.counts

        @cache  # the ends of the bracket are asked for twice
        def excess(factor: float) -> float:
            return self.message.trace_with(self(factor)[1].kernel, counts) - wanted

        if excess(1.0) <= 0.0 or excess(0.0) >= 0.0:
            return 1.0
        return float(brentq(excess, 0.0, 1.0, xtol=_WEAK))


def first_codes(equations: DeepEquations) -> Array:
    """The codes that tell some targets apart, or all if neurons on those alone cannot fit them, (k, G).

    Odd phi is of the latter kind: on one-hot targets of two classes such neurons are opposite on both.
    """
    codes, targets = code_patterns(equations.groups.targets), equations.groups.targets
    separating = np.asarray(codes[codes.std(1) > 0])
    activity = _activity(equations, separating)  # (k, G)
    missed = targets - np.linalg.pinv(activity, rcond=_SINGULAR) @ (activity @ targets)
    return separating if np.abs(missed).max() < _FITTED * np.abs(targets).max() else np.asarray(codes)


def _activity(equations: DeepEquations, codes: Array) -> Array:
    """<phi> of neurons on these codes, (k, G)."""
    phi, variances = equations.readout.nonlinearity, equations.groups.variances
    low, high = phi(neuron_states(phi, math.sqrt(float(variances.max()))))
    margin = 0.5 * (1.0 - _SATURATION)
    return np.asarray(low + (high - low) * (margin + _SATURATION * codes))


def _kernels(equations: DeepEquations, shares: Sequence[float], codes: Array) -> list[ClassBlocks]:
    """K_1 ... K_{L-1}."""
    phi, variances = equations.readout.nonlinearity, equations.groups.variances
    activity = _activity(equations, codes)
    coded, n = activity.T @ activity / len(codes), len(variances)
    kernels, covariance = list[ClassBlocks](), np.diag(np.tile(variances, 2))  # of two inputs of each class
    for share, variance in zip(shares, equations.weight_variances[1:], strict=True):
        covariance = variance * phi.gaussian_kernel(covariance)
        between = covariance[:n, n:]
        own = np.diagonal(covariance)[:n] - np.diagonal(between)
        kernels.append(ClassBlocks((1.0 - share) * between + share * variance * coded, own))
    return kernels


def _converged(equations: DeepEquations, below: ClassBlocks, n_points: int, seed: int) -> tuple[Array, Layer]:
    """The t that minimises S at a given K_{L-1}, from zero, with points drawn anew on the way.

    With many inputs points of one t know little of others, and whole steps would go to and fro.
    """
    readout, last = equations.readout, len(equations.weight_variances) - 1
    field, modes = np.zeros_like(equations.groups.targets), None
    before, radius = field, _RADIUS
    for _ in range(_MOST_STEPS):
        points = draw(readout.layer(field, below), equations, last, n_points, seed, modes)
        found = readout.solve(field, below, points, 1e-6, radius)
        step, field, modes = found.field - field, found.field, points.modes
        change = float(np.abs(step).max())
        if change < _SETTLED and found.residual < _REACHED:
            break
        along = float((step * before).sum()) / max(float((before**2).sum()), _SINGULAR)
        radius = _SHORTER * min(radius, change) if along < -_BACK else min(_LONGER * radius, _RADIUS)
        before = step
    return field, readout.layer(field, below)


def draw(
    layer: Layer,
    equations: DeepEquations,
    index: int,
    n_points: int,
    seed: int,
    modes: Array | None = None,
) -> LayerPoints:
    """Points that fit a layer, the one of this index from 0.

    Its modes are sought from every code, known modes and random latents.
    """
    groups = equations.groups
    states = neuron_states(layer.nonlinearity, math.sqrt(float(groups.variances.max())))
    codes: Integers = code_patterns(groups.targets).astype(int)
    along = [np.asarray(layer.nonlinearity(states))[codes] * layer.counts @ layer.field_root]
    if layer.n_latents > layer.rank:
        along.append(0.5 * states[codes] @ np.linalg.pinv(layer.mean_root, rcond=1e-6).T)
    random = np.random.default_rng(0).standard_normal((_N_RANDOM, layer.n_latents))
    random *= np.repeat([1.0, 3.0], _N_RANDOM // 2)[:, None]
    starts = [np.concatenate(along, axis=1), random, np.zeros((1, layer.n_latents))]
    starts += [] if modes is None else [modes]
    fractions = equations.readout.fractions if equations.is_readout(index) else None
    return layer.find_points(equations.images(index), np.concatenate(starts), n_points, seed, fractions)
