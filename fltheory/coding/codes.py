"""The code of a layer: which neurons are active on which classes, and an order in which it shows."""

import numpy as np
from attrs import frozen

from fltheory.coding.grouping import Grouping, Layer, drawn
from fltheory.numerics.validation import Array, Integers, sealed


@frozen(eq=False)
class Codes:
    """The neurons of one layer, grouped by the classes on which they are active.

    Attributes
    ----------
    codes
        The codes that occur, 0 or 1 a class, most frequent first, shape (k, n_classes). Where all neurons
        make one cloud (linear, lazy and untrained networks), k is 1 and the code is 0 on all classes
        unless some stand out.
    fractions
        The share of neurons with each, falling, shape (k,).
    standard_errors
        Of the fractions, were the neurons independent, shape (k,).
    members
        The code of each neuron, a row of ``codes``, shape (n,).
    centres
        Mean of ``class_means`` over the neurons of each code, shape (k, n_classes).
    class_means
        Mean activation of each neuron on each class, shape (n, n_classes).
    order
        A permutation of the neurons in which their code shows, shape (n,): by code and then from
        the most active to the least; for one cloud of activations of both signs, whose code is analog,
        along the direction in which they vary most.
    """

    codes: Integers
    fractions: Array
    standard_errors: Array
    members: Integers
    centres: Array
    class_means: Array
    order: Integers

    @property
    def is_discrete(self) -> bool:
        """Whether the neurons fall into more than one code."""
        return len(self.codes) > 1


def find_codes(
    representation: object,
    layer: int | None = None,
    n: int | None = None,
    seed: int = 0,
    labels: object = None,
    readouts: object = None,
) -> Codes:
    """Group the neurons of a layer by code: how many codes there are is found.

    Clusters of class means and readouts get a code each: the class means of all clusters are split into
    active and silent where that leaves least variance (docs/theory.md section 12). Clusters of the same
    code are one. Without labels each input is a class of its own.

    Parameters
    ----------
    representation
        Theory or samples, of which a network is drawn; or an array of activations (n, P).
    layer
        1 to L; L if None.
    n
        Number of neurons drawn; the width of the network if None.
    seed
        Of the draw.
    labels
        The class of each input, (P,); those of the task if None.
    readouts
        Readout weights (n, m) that belong to an array of activations.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or if ``layer`` or ``n`` comes with an array or ``readouts``
        without one.
    """
    return codes_of(drawn(representation, layer, n, seed, labels, readouts))


def codes_of(neurons: Layer) -> Codes:
    """The codes of checked neurons."""
    means = neurons.values
    grouping = Grouping.of(means, neurons.readouts, neurons.labels is not None)
    codes, members, counts = ranked(grouping.codes, grouping.members(means, neurons.readouts))
    return Codes(
        codes=sealed(codes),
        fractions=sealed(counts / len(means)),
        standard_errors=sealed(np.sqrt(counts * (len(means) - counts) / len(means) ** 3)),
        members=sealed(members),
        centres=sealed(np.stack([means[members == k].mean(0) for k in range(len(codes))])),
        class_means=sealed(np.array(means)),
        order=sealed(_order(neurons.activations, means, members)),
    )


def ranked(codes: Integers, members: Integers) -> tuple[Integers, Integers, Array]:
    """Codes that occur, most frequent first, the row of each neuron, and the number of each."""
    found, index, counts = np.unique(members, return_inverse=True, return_counts=True)
    rank = np.argsort(-counts, kind="stable")
    return codes[found[rank]], np.argsort(rank)[index.reshape(-1)], counts[rank].astype(float)


def _order(activations: Array, means: Array, members: Integers) -> Integers:
    if members.max() == 0 and activations.min() < 0.0:
        return leading_order(activations)
    return np.lexsort((-means.sum(1), members))


def leading_order(activations: Array) -> Integers:
    """Neurons along the direction in which activations (n, P) vary most, the largest component first."""
    _, _, directions = np.linalg.svd(activations - activations.mean(0), full_matrices=False)
    leading = directions[0] * np.sign(directions[0][np.abs(directions[0]).argmax()])
    return np.argsort(-activations @ leading, kind="stable")
