"""The coding scheme of a layer: who carries the output, and whether neurons fall into groups."""

import numpy as np
from attrs import frozen

from fltheory.coding.clusters import find_clusters
from fltheory.coding.codes import Codes, codes_of
from fltheory.coding.grouping import Layer, drawn
from fltheory.numerics.validation import Array, Integers, check_instance, check_integer, sealed
from fltheory.representation import Representation

_FEW = 0.5  # share of the output that few neurons carry in a sparse scheme


@frozen(eq=False)
class CodingScheme:
    """How the neurons of a layer share the work (docs/theory.md section 12).

    Attributes
    ----------
    kind
        "sparse" if as many neurons as there are classes (outputs, without labels) carry more than half of
        the total of ``contributions``; else "redundant" if neurons fall into several codes, each shared
        by many; else "analog".
    codes
        Of the same neurons, in the same order.
    contributions
        The share of each neuron in each output, sum over inputs of y a phi, whose columns have sum 1; below
        the last layer its share in the variance across neurons, in one column. Shape (n, m) or (n, 1).
    readout_gap
        Distance of the two nearest clusters of readouts, in standard deviations inside clusters: 0 for one
        cloud; None below the last layer.
    selectivity
        Category selectivity: the share of the variance of a neuron over inputs that lies between classes,
        0 to 1 and (n_classes - 1) / (P - 1) by chance, shape (n,); None without labels.
    layer_selectivity
        The same of all neurons together.
    """

    kind: str
    codes: Codes
    contributions: Array
    readout_gap: float | None
    selectivity: Array | None
    layer_selectivity: float | None

    @property
    def participation(self) -> Array:
        """How many neurons carry each column of ``contributions``: (sum |c|)^2 / sum c^2, shape (m,)."""
        return participation(self.contributions)

    def top_share(self, k: int) -> Array:
        """The share of each column that its k strongest neurons carry, shape (m,)."""
        k = check_integer("k", k, maximum=len(self.contributions))
        return sealed(np.sort(self.contributions, axis=0)[::-1][:k].sum(0))

    def most_active(self, k: int) -> Integers:
        """The k neurons that carry most of all columns together, the strongest first, shape (k,)."""
        k = check_integer("k", k, maximum=len(self.contributions))
        return sealed(np.argsort(-self.contributions.sum(1), kind="stable")[:k])


def coding_scheme(
    representation: object,
    layer: int | None = None,
    n: int | None = None,
    seed: int = 0,
    labels: object = None,
) -> CodingScheme:
    """Measures that tell an analog, a redundant and a sparse coding scheme apart.

    Parameters
    ----------
    representation
        Theory or samples, of which a network is drawn.
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
        If an argument is not as above.
    """
    answer: Representation = check_instance("representation", representation, Representation)
    neurons = drawn(answer, layer, n, seed, labels)
    codes, targets = codes_of(neurons), answer.model.task.targets
    carried = _carried(neurons, targets)
    few = targets.shape[1] if neurons.labels is None else len(np.unique(neurons.labels))
    gap = None if neurons.readouts is None else find_clusters(neurons.readouts).separation
    return CodingScheme(
        _kind(carried, few, codes), codes, sealed(_shares(carried)), gap, *_selectivity(neurons)
    )


def participation(contributions: Array) -> Array:
    """Effective number of neurons of each column of (n, m)."""
    square = (contributions**2).sum(0)
    return sealed(np.abs(contributions).sum(0) ** 2 / np.where(square == 0.0, 1.0, square))


def _carried(neurons: Layer, targets: Array) -> Array:
    """What each neuron adds to each output along its targets (n, m), or to the variance (n, 1)."""
    if neurons.readouts is None:
        centred = neurons.activations - neurons.activations.mean(0)
        return np.asarray((centred**2).sum(1, keepdims=True))
    return np.asarray(neurons.readouts * (neurons.activations @ targets))


def _shares(carried: Array) -> Array:
    """Columns divided by their sums; a column that carries nothing stays as it is."""
    total = carried.sum(0)
    return carried / np.where(total == 0.0, 1.0, total)


def _kind(carried: Array, few: int, codes: Codes) -> str:
    size = np.sort(np.abs(carried).sum(1))[::-1]
    if len(size) > 2 * few and size[:few].sum() > _FEW * size.sum():
        return "sparse"
    return "redundant" if codes.is_discrete else "analog"


def _selectivity(neurons: Layer) -> tuple[Array | None, float | None]:
    if neurons.labels is None:
        return None, None
    _, counts = np.unique(neurons.labels, return_counts=True)
    mean = neurons.activations.mean(1, keepdims=True)
    between = ((neurons.values - mean) ** 2) @ counts
    total = ((neurons.activations - mean) ** 2).sum(1)
    each = between / np.where(total == 0.0, 1.0, total)
    return sealed(each), float(between.sum() / (total.sum() or 1.0))
