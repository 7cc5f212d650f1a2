"""Alignment: of the neurons of different chains, and of kernels with the targets."""

import numpy as np
from attrs import frozen

from fltheory.coding.drift import matching
from fltheory.coding.sampled import as_samples, check_samples
from fltheory.meanfield.lazy import prior_kernels
from fltheory.numerics.validation import Array, Integers, check_instance, check_integer, sealed
from fltheory.representation import Representation


@frozen(eq=False)
class Alignment:
    """The neurons of each chain in the order in which they agree best with those of one chain.

    Attributes
    ----------
    order
        For chain c the neuron that matches neuron i of the reference is ``order[c, i]``; shape (C, N).
    overlap, unaligned
        The overlap with the reference in this order and as the neurons came, shape (C,): covariance across
        neurons over variance, summed over inputs. 1 for the reference itself.
    """

    order: Integers
    overlap: Array
    unaligned: Array


def align(
    samples: object, layer: int | None = None, reference: int = 0, draw: int | None = None
) -> Alignment:
    """Match the neurons of each chain with those of one chain, by their activations.

    Parameters
    ----------
    samples
        Networks of some chains.
    layer
        1 to L; L if None.
    reference
        The chain whose order is kept, from 0.
    draw
        Which draw of each chain, from 0; None: the last.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    chains = check_samples("samples", samples)
    layer = chains.model.check_layer(chains.model.n_hidden_layers if layer is None else layer, lowest=1)
    reference = check_integer("reference", reference, minimum=0, maximum=chains.n_chains - 1)
    last = chains.n_draws - 1
    draw = last if draw is None else check_integer("draw", draw, minimum=0, maximum=last)
    x = chains.activations(layer)[:, draw]
    x = x - x.mean(1, keepdims=True)
    order = np.stack([matching(x[reference], chain) for chain in x])
    aligned = np.stack([chain[row] for chain, row in zip(x, order, strict=True)])
    return Alignment(sealed(order), _cosines(x[reference], aligned), _cosines(x[reference], x))


def _cosines(one: Array, others: Array) -> Array:
    """Of one array (N, P) with each of others (C, N, P)."""
    norms = np.sqrt((one**2).sum() * (others**2).sum((1, 2)))
    return sealed((one * others).sum((1, 2)) / np.where(norms == 0.0, 1.0, norms))


@frozen
class KernelAlignment:
    """How much a layer has learned.

    Attributes
    ----------
    alignment, prior_alignment
        Of the kernel of the layer, and of what it is under the prior at infinite width, with Y Y^T: the
        cosine of the angle between the centred matrices, 1 if the representation differs between inputs as
        the targets do.
    change
        Norm of the difference of the two kernels over that of the prior's.
    alignment_error, change_error
        Standard errors over chains; None for a theory, one chain, or samples that were not kept whole.
    """

    alignment: float
    prior_alignment: float
    change: float
    alignment_error: float | None = None
    change_error: float | None = None


def kernel_alignment(representation: object, layer: int | None = None) -> KernelAlignment:
    """Whether a layer has learned its task: kernels against the prior and the targets.

    In the lazy scaling kernels stay what they are under the prior, whatever is learned; in the non-lazy
    scaling they align with the targets, more so from layer to layer. In samples the noise of N neurons
    changes a kernel by an amount of order N^(-1/2) a draw.

    Parameters
    ----------
    representation
        Theory or samples.
    layer
        0 (the inputs) to L; L if None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    answer: Representation = check_instance("representation", representation, Representation)
    model = answer.model
    layer = model.check_layer(model.n_hidden_layers if layer is None else layer)
    prior = model.input_kernel if layer == 0 else prior_kernels(model, model.input_kernel)[layer - 1]
    targets = model.task.targets @ model.task.targets.T
    kernel = answer.kernel(layer)
    chains = _chain_kernels(answer, layer)
    return KernelAlignment(
        centred_alignment(kernel, targets),
        centred_alignment(prior, targets),
        _change(kernel, prior),
        _error([centred_alignment(k, targets) for k in _leaving_one_out(chains)]),
        _error([_change(k, prior) for k in _leaving_one_out(chains)]),
    )


def centred_alignment(one: Array, other: Array) -> float:
    """Cosine of the angle between two kernels (P, P) of centred representations; 0 if one is constant."""
    a, b = (k - k.mean(0) - k.mean(1)[:, None] + k.mean() for k in (one, other))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 0.0 else 0.0


def _change(kernel: Array, prior: Array) -> float:
    return float(np.linalg.norm(kernel - prior) / np.linalg.norm(prior))


def _chain_kernels(representation: Representation, layer: int) -> Array | None:
    """The kernel averaged over the draws of each of at least two chains, (C, P, P)."""
    samples = as_samples(representation)
    if samples is None or samples.n_chains == 1 or layer == 0 or not samples.draws.weights:
        return None
    width = samples.model.width
    kernels: Array = samples.functional(lambda phi: phi.transpose(0, 2, 1) @ phi / width, layer)
    return np.asarray(kernels.mean(1))


def _leaving_one_out(kernels: Array | None) -> Array:
    """Averages over all chains but one, (C, P, P)."""
    if kernels is None:
        return np.empty((0, 1, 1))
    return np.asarray((kernels.sum(0) - kernels) / (len(kernels) - 1))


def _error(values: list[float]) -> float | None:
    """The jackknife's standard error, from the values without one chain each."""
    n = len(values)
    return float(np.sqrt((n - 1) * np.var(values))) if n else None
