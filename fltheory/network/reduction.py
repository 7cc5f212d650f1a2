"""The part of the first layer that the training inputs see: an equivalent, smaller network."""

import math

import numpy as np
from attrs import evolve, frozen

from fltheory.model import Model
from fltheory.numerics.validation import Array, read_only
from fltheory.task import ArrayTask


def weight_shapes(model: Model) -> tuple[tuple[int, int], ...]:
    """Shapes of W^1 ... W^L, (N, N_in), and of the readouts, (N, m)."""
    n, task = model.width, model.task
    return (n, task.n_inputs), *((n, n),) * (model.n_hidden_layers - 1), (n, task.n_outputs)


@frozen(eq=False)
class Reduction:
    """A network whose first-layer weights are those along the training inputs: exact, for any depth.

    With B an orthonormal basis of the span of the inputs, X = X B B^T and z^1 = (W B)(X B)^T / sqrt(N0):
    a network with q = rank X inputs X' = sqrt(q / N0) X B and weights W' = W B of the same prior. The
    rest of W keeps its prior (docs/theory.md, section 8). Where the inputs are independent, q = P, the
    basis is such that X' is symmetric: the coordinates are then whitened preactivations, those of
    K_0^{1/2}, and for orthogonal inputs the preactivations themselves.

    Attributes
    ----------
    model
        The small network.
    basis
        B, shape (N0, q); None: nothing is reduced.
    """

    model: Model
    basis: Array | None

    @classmethod
    def none(cls, model: Model) -> "Reduction":
        """All weights as they are."""
        return cls(model, None)

    @classmethod
    def of(cls, model: Model) -> "Reduction":
        """The smallest equivalent network."""
        x = model.task.inputs
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        rank = max(1, int((s > max(x.shape) * np.finfo(float).eps * s[0]).sum()))
        return cls.along(model, vt.T @ u.T if rank == len(x) else vt[:rank].T)

    @classmethod
    def along(cls, model: Model, basis: Array) -> "Reduction":
        """The one of this basis of the span of the inputs, (N0, q): any other is as good, but another."""
        basis, task = read_only(basis), model.task
        scale = math.sqrt(basis.shape[1] / task.n_inputs)
        return cls(evolve(model, task=ArrayTask(scale * task.inputs @ basis, task.targets)), basis)

    @property
    def whole_shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of W^1 ... W^L and of the readouts of the network as it was."""
        (n, q), *deeper = weight_shapes(self.model)
        return (n, q if self.basis is None else len(self.basis)), *deeper

    def reduce(self, weights: Array) -> Array:
        """W' = W B: from (..., N, N0) to (..., N, q)."""
        return weights if self.basis is None else weights @ self.basis

    def complete(self, weights: Array, seed: int, draw: int) -> Array:
        """W of one network: from W' (N, q) to (N, N0), its unseen part drawn from the prior.

        The same ``seed`` and ``draw`` give the same weights.
        """
        if self.basis is None:
            return weights
        rng = np.random.default_rng([seed, draw])
        sigma = math.sqrt(self.model.weight_variances[0])
        unseen = sigma * rng.standard_normal((len(weights), len(self.basis)))
        return np.asarray(unseen + (weights - unseen @ self.basis) @ self.basis.T)
