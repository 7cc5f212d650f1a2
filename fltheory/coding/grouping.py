"""Neurons in groups of one code: what is looked at of them, and what the groups code for."""

import numpy as np
from attrs import frozen

from fltheory.coding.clusters import Clusters, find_clusters
from fltheory.numerics.validation import (
    Array,
    Booleans,
    Integers,
    check_array,
    check_integer,
    check_labels,
    describe,
)
from fltheory.representation import Representation, class_means

_FEW = 10  # inputs without labels: up to here all are looked at, above leading directions
_MOST = 20  # leading directions
_NOISE = 2.858  # of the largest singular value of noise to the median one (Gavish & Donoho 2014)
_CLEAR = 4.0  # standard deviations between active and silent classes, where all neurons share a code


@frozen(eq=False)
class Layer:
    """Neurons of one layer as they came.

    Attributes
    ----------
    activations, readouts
        (n, P), and (n, m) or None.
    labels
        The class of each input, (P,); None: each input is a class of its own.
    """

    activations: Array
    readouts: Array | None
    labels: Integers | None

    @property
    def values(self) -> Array:
        """Mean activation on each class, (n, n_classes)."""
        return class_values(self.activations, self.labels)


def drawn(
    representation: object,
    layer: int | None,
    n: int | None,
    seed: int,
    labels: object,
    readouts: object = None,
) -> Layer:
    """Checked neurons of a theory, of a sampled network or of an array (n, P)."""
    seed = check_integer("seed", seed, minimum=0)
    if not isinstance(representation, Representation):
        _refuse("an array of activations", layer=layer, n=n)
        activations = _check_activations(representation)
        if readouts is not None:
            readouts = check_array("readouts", readouts, (len(activations), "m"))
        return Layer(activations, readouts, check_classes(labels, activations.shape[1]))
    _refuse("a Representation, which has its own", readouts=readouts)
    model = representation.model
    layer = model.check_layer(model.n_hidden_layers if layer is None else layer, lowest=1)
    n = model.width if n is None else check_integer("n", n)
    labels = model.task.labels if labels is None else labels
    classes = check_classes(labels, model.task.n_samples)
    neurons = representation.neurons(n, layer, seed)
    return Layer(neurons.activations, neurons.readouts, classes)


def class_values(activations: Array, labels: Integers | None) -> Array:
    """Mean activation on each class, (..., P) -> (..., n_classes); without labels on each input."""
    return activations if labels is None else class_means(activations, labels)


def check_classes(labels: object, n_inputs: int) -> Integers | None:
    """Labels (P,), or None."""
    return None if labels is None else check_labels("labels", labels, n_inputs)


def _refuse(company: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected None with {company}, got {describe(value)}")


def _check_activations(value: object) -> Array:
    if not isinstance(value, np.ndarray | list | tuple):
        raise TypeError(
            f"representation: expected a Representation or an array of activations, got {describe(value)}"
        )
    return check_array("representation", value, ("n", "P"))


@frozen(eq=False)
class Grouping:
    """Clusters of neurons, and their codes.

    Attributes
    ----------
    directions
        Of class values, those that are looked at, (n_classes, q).
    clusters
        Of these and of the readouts.
    codes
        Distinct, 0 or 1 a class, (k, n_classes).
    code_of
        The code of each cluster, a row of ``codes``.
    """

    directions: Array
    clusters: Clusters
    codes: Integers
    code_of: Integers

    @classmethod
    def of(cls, values: Array, readouts: Array | None, has_labels: bool) -> "Grouping":
        """From class values (n, n_classes) and readouts (n, m) of neurons.

        Of classes all directions are looked at; of inputs without labels, if they are many, those above
        noise.
        """
        directions = np.eye(values.shape[1]) if has_labels else _leading_directions(values)
        blocks = _blocks(values @ directions, readouts)
        clusters = find_clusters(*blocks)
        found, index = np.unique(clusters.assign(*blocks), return_inverse=True)
        centres = np.stack([values[index == k].mean(0) for k in range(len(found))])
        spread = float(np.sqrt(((values - centres[index]) ** 2).mean()))
        codes, code = np.unique(_active(centres, spread), axis=0, return_inverse=True)
        code_of = np.zeros(len(clusters.centres), np.int64)
        code_of[found] = code.reshape(-1)
        return cls(directions, clusters, codes.astype(np.int64), code_of)

    def members(self, values: Array, readouts: Array | None = None) -> Integers:
        """The code of each neuron, (...), from class values (..., n_classes) and readouts (..., m)."""
        return self.code_of[self.clusters.assign(*_blocks(values @ self.directions, readouts))]


def _blocks(values: Array, readouts: Array | None) -> list[Array]:
    return [values] if readouts is None else [values, readouts]


def _leading_directions(values: Array) -> Array:
    """Of the values (n, P) on inputs all directions, or if they are many those above noise."""
    n_inputs = values.shape[1]
    if n_inputs <= _FEW:
        return np.eye(n_inputs)
    _, size, vectors = np.linalg.svd(values - values.mean(0), full_matrices=False)
    n_kept = int((size > _NOISE * np.median(size)).sum())
    kept = vectors[: min(max(n_kept, 1), _MOST)].T
    largest = np.take_along_axis(kept, np.abs(kept).argmax(0, keepdims=True), axis=0)
    return np.asarray(kept * np.sign(largest))  # a sign that does not depend on the order of inputs


def _active(centres: Array, spread: float) -> Booleans:
    """Class means of clusters (k, n_classes) split in two, active and silent, of least variance inside.

    Of a single cluster only if the two are far apart, in units of the spread of its neurons.
    """
    ordered = np.sort(centres.ravel())
    total, count = np.cumsum(ordered), np.arange(1, len(ordered) + 1)
    if ordered[0] == ordered[-1]:
        return np.zeros(centres.shape, bool)
    low, high = total[:-1] / count[:-1], (total[-1] - total[:-1]) / (count[-1] - count[:-1])
    cut = int((count[:-1] * (count[-1] - count[:-1]) * (high - low) ** 2).argmax())
    if len(centres) == 1 and high[cut] - low[cut] < _CLEAR * spread:
        return np.zeros(centres.shape, bool)
    return np.asarray(centres > 0.5 * (ordered[cut] + ordered[cut + 1]))
