"""How many neurons have each code, with errors."""

import math
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from fltheory.coding.codes import find_codes
from fltheory.coding.grouping import Grouping, check_classes, class_values
from fltheory.coding.sampled import as_samples
from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers, check_array, check_instance, check_integer, sealed
from fltheory.representation import Representation

if TYPE_CHECKING:  # torch is imported only where there are samples
    from fltheory.network.samples import PosteriorSamples


@frozen(eq=False)
class CodeFractions:
    """The share of the neurons of a layer that have each code.

    Attributes
    ----------
    codes
        0 or 1 a class, most frequent first, shape (k, n_classes).
    fractions
        Falling, shape (k,).
    standard_errors
        That of n independent neurons for a theory; for samples from how far the chains differ, None for one
        chain; shape (k,). Frozen chains have an error for where they froze, none for where they should be.
    by_draw
        In each network, shape (C, D, k); None for a theory.
    """

    codes: Integers
    fractions: Array
    standard_errors: Array | None
    by_draw: Array | None = None

    def of(self, code: object) -> float:
        """The share of one code, given as 0 or 1 a class; 0 if it does not occur."""
        wanted = check_array("code", code, (self.codes.shape[1],))
        return float(self.fractions[(self.codes == wanted).all(1)].sum())


def code_fractions(
    representation: object,
    layer: int | None = None,
    n: int = 4000,
    seed: int = 0,
    labels: object = None,
) -> CodeFractions:
    """The shares of the codes of a layer, and their errors.

    Parameters
    ----------
    representation
        Theory, of which neurons are drawn; or samples: codes are found in the last network of each chain,
        then the neurons of all networks are counted. Of samples without networks, for a bounded phi, codes
        on the classes of the task in the last layer, as counted while sampling: a neuron is active on a
        class if its mean activation there is above the middle of phi's range.
    layer
        1 to L; L if None.
    n
        Number of neurons drawn from a theory.
    seed
        Of that draw.
    labels
        The class of each input, (P,); those of the task if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or samples without networks do not tell.
    """
    answer = check_instance("representation", representation, Representation)
    n, seed = check_integer("n", n), check_integer("seed", seed, minimum=0)
    samples = as_samples(answer)
    if samples is not None:
        return _counted(samples, layer, labels)
    codes = find_codes(answer, layer, n, seed, labels)
    return CodeFractions(codes.codes, codes.fractions, codes.standard_errors)


def _counted(samples: "PosteriorSamples", layer: int | None, labels: object) -> CodeFractions:
    model = samples.model
    layer = model.check_layer(model.n_hidden_layers if layer is None else layer, lowest=1)
    classes = check_classes(model.task.labels if labels is None else labels, model.task.n_samples)
    is_told = labels is None and classes is not None and layer == model.n_hidden_layers
    traced = samples.draws.traces.get("code_shares")
    if traced is not None and is_told and not samples.draws.weights and _makes_codes(model):
        return _traced(traced)
    values = samples.functional(lambda phi: class_values(phi, classes), layer)  # (C, D, N, n_classes)
    if layer < model.n_hidden_layers:
        grouping = Grouping.of(_last(values), None, classes is not None)
        members = grouping.members(values)
    else:
        grouping = Grouping.of(_last(values), _last(samples.readouts), classes is not None)
        members = grouping.members(values, samples.readouts)
    shares = np.stack([(members == k).mean(-1) for k in range(len(grouping.codes))], axis=-1)  # (C, D, k)
    return _with_errors(grouping.codes, shares)


def _makes_codes(model: Model) -> bool:
    """Whether neurons settle at both ends of phi's range, so that a threshold tells codes."""
    return model.nonlinearity.is_bounded and not model.is_lazy and math.isfinite(model.temperature)


def _traced(shares: Array) -> CodeFractions:
    """From the shares of all codes, (C, D, 2^n_classes), numbered so that class 0 is the lowest bit."""
    n_classes = shares.shape[-1].bit_length() - 1
    seen = np.flatnonzero(shares.any((0, 1)))
    return _with_errors((seen[:, None] >> np.arange(n_classes)) & 1, shares[..., seen])


def _last(values: Array) -> Array:
    """The neurons of the last network of each chain: (C, D, N, q) -> (C N, q)."""
    return values[:, -1].reshape(-1, values.shape[-1])


def _with_errors(codes: Integers, shares: Array) -> CodeFractions:
    """Of codes (k, n_classes) and their shares in each network, (C, D, k), in any order."""
    order = np.argsort(-shares.mean((0, 1)), kind="stable")
    codes, shares = codes[order], shares[..., order]
    by_chain = shares.mean(1)
    n_chains = len(by_chain)
    errors = None if n_chains == 1 else sealed(by_chain.std(0, ddof=1) / np.sqrt(n_chains))
    return CodeFractions(sealed(codes), sealed(by_chain.mean(0)), errors, sealed(shares))
