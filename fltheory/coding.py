"""The code of a layer: which neurons are active on which classes, and an order in which it shows."""

import numpy as np
from attrs import frozen

from fltheory.meanfield.solution import activity_threshold
from fltheory.numerics.validation import (
    Array,
    Booleans,
    Integers,
    check_array,
    check_integer,
    check_labels,
    describe,
    sealed,
)
from fltheory.representation import Representation, class_means


@frozen(eq=False)
class Codes:
    """The neurons of one layer, grouped by the classes on which they are active.

    Attributes
    ----------
    codes
        The codes that occur, 0 or 1 a class, most frequent first, shape (k, n_classes).
    fractions
        The share of neurons with each, falling, shape (k,).
    members
        The code of each neuron, a row of ``codes``, shape (n,).
    class_means
        Mean activation of each neuron on each class, shape (n, n_classes).
    order
        A permutation of the neurons in which their code shows, shape (n,): by code and then from
        the most active to the least; for linear phi, whose code is analog, along the direction in
        which activations vary most.
    """

    codes: Integers
    fractions: Array
    members: Integers
    class_means: Array
    order: Integers


def find_codes(
    representation: object,
    layer: int | None = None,
    n: int | None = None,
    seed: int = 0,
    labels: object = None,
) -> Codes:
    """Group the neurons of a layer by code: on which classes they are above the middle of phi's range.

    Parameters
    ----------
    representation
        Theory or samples, of which a network is drawn; or an array of activations (n, P), the
        middle of whose range is the threshold.
    layer
        1 to L; L if None.
    n
        Number of neurons drawn; the width of the network if None.
    seed
        Of the draw.
    labels
        The class of each input, (P,); those of the task if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, naming ``labels`` for a task without, or if ``layer`` or
        ``n`` comes with an array.
    """
    seed = check_integer("seed", seed, minimum=0)
    if not isinstance(representation, Representation):
        _refuse_options(layer=layer, n=n)
        activations = _check_activations(representation)
        threshold, is_analog = 0.5 * float(activations.min() + activations.max()), False
    else:
        model = representation.model
        layer = model.check_layer(model.n_hidden_layers if layer is None else layer, lowest=1)
        n = model.width if n is None else check_integer("n", n)
        labels = model.task.labels if labels is None else labels
        threshold, is_analog = activity_threshold(model), model.nonlinearity.is_linear
        activations = representation.neurons(n, layer, seed).activations
    means = class_means(activations, _check_labels(labels, activations.shape[1]))
    codes, fractions, members = group_codes(means > threshold)
    order = leading_order(activations) if is_analog else np.lexsort((-means.sum(1), members))
    return Codes(sealed(codes), sealed(fractions), sealed(members), sealed(means), sealed(order))


def group_codes(active: Booleans) -> tuple[Integers, Array, Integers]:
    """The distinct rows of ``active`` (n, n_classes), most frequent first; their shares; each neuron's."""
    codes, members, counts = np.unique(active, axis=0, return_inverse=True, return_counts=True)
    rank = np.argsort(-counts, kind="stable")
    return codes[rank].astype(np.int64), counts[rank] / len(active), np.argsort(rank)[members.reshape(-1)]


def leading_order(activations: Array) -> Integers:
    """Neurons along the direction in which activations (n, P) vary most, the largest component first."""
    _, _, directions = np.linalg.svd(activations - activations.mean(0), full_matrices=False)
    leading = directions[0] * np.sign(directions[0][np.abs(directions[0]).argmax()])
    return np.argsort(-activations @ leading, kind="stable")


def _refuse_options(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected None with an array of activations, got {describe(value)}")


def _check_activations(value: object) -> Array:
    if not isinstance(value, np.ndarray | list | tuple):
        raise TypeError(
            f"representation: expected a Representation or an array of activations, got {describe(value)}"
        )
    return check_array("representation", value, ("n", "P"))


def _check_labels(labels: object, n_inputs: int) -> Integers:
    if labels is None:
        raise ValueError("labels: expected the class of each input, got None (and the task has none)")
    return check_labels("labels", labels, n_inputs)
