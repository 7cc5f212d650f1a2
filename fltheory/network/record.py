"""What is written down of each draw while chains run: networks if they are kept, and what sums them up."""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fltheory.model import Model
from fltheory.network.draws import READOUTS, TRACES, WEIGHTS
from fltheory.network.forward import hidden_layers, outputs
from fltheory.network.readout import ReadoutPosterior
from fltheory.network.reduction import Reduction, weight_shapes
from fltheory.network.streaming import updated
from fltheory.network.target import IntegratedTarget
from fltheory.numerics.validation import Array, Integers
from fltheory.representation import class_means
from fltheory.task import Task

KEEP = ("all", "readouts", "statistics")
_N_ENTRIES = 3  # of a kernel and of the test outputs, traced one by one
_MOST_CLASSES = 4  # up to which pairs of classes and codes are traced
_LARGEST_FIELD = 2048  # entries of t, P m, up to which it is kept draw by draw


@frozen(eq=False)
class Recorder:
    """What to keep of the draws of a batch of chains.

    Attributes
    ----------
    task
        That of the whole network: labels and test inputs.
    reduction, targets, device
        Of the chains. What is recorded is computed in float64.
    seeds
        One a chain, for the part of the first layer that the training inputs do not see.
    keep
        "all" keeps the networks, "readouts" their readouts; these and "statistics" traces of each
        draw, and the latter two averages in place of what could be computed from the weights.
    """

    task: Task
    reduction: Reduction
    targets: Array
    device: str
    seeds: tuple[int, ...]
    keep: str

    @property
    def model(self) -> Model:
        """The network as the chains know it."""
        return self.reduction.model

    def rows(
        self, weights: tuple[Tensor, ...], readouts: Tensor, draw: int, means: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a draw leaves, (C, ...) by full names, and the averages including it.

        Parameters
        ----------
        weights, readouts
            W^1 ... W^L, each (C, N, N_in) as the chains know them, and a, (C, N, m).
        draw
            Its number.
        means
            The averages over the draws before.
        """
        seen = tuple(w.double() for w in weights)
        view = _View(self, seen, readouts.double(), draw)
        found = {TRACES + name: value for name, value in view.traces()}
        if self.keep == "all":
            found |= {f"{WEIGHTS}{layer}": w for layer, w in enumerate(weights, 1)}
        if self.keep != "statistics":
            found[READOUTS] = readouts
        if self.keep == "all":
            return found, {}
        if self.model.task.targets.size <= _LARGEST_FIELD:
            found[TRACES + "dual_field"] = view.dual_field
        return found, updated(means, dict(view.values()), dict(view.spreading()), draw)

    def bytes_per_draw(self) -> int:
        """Memory that a draw of one chain takes, up to a few numbers."""
        shapes = weight_shapes(self.model)
        kept = {"all": shapes, "readouts": shapes[-1:], "statistics": ()}[self.keep]
        field = self.model.task.targets.size
        n_numbers = sum(rows * columns for rows, columns in kept) + self._n_traces
        return 8 * (n_numbers + (field if self.keep != "all" and field <= _LARGEST_FIELD else 0))

    @property
    def _n_traces(self) -> int:
        pairs = len(self.pairs_of_classes[0])
        n_codes = 0 if self.code_weights is None else 2 ** len(self.code_weights)
        return 16 + self.model.n_hidden_layers * (1 + _N_ENTRIES + pairs) + n_codes

    # What does not change from draw to draw -----------------------------------------------------

    @cached_property
    def exact(self) -> IntegratedTarget:
        """The posterior in float64."""
        return IntegratedTarget(self.model, targets=self.targets, device=self.device)

    @cached_property
    def test_inputs(self) -> Tensor | None:
        """Of the whole network, shape (n, N0)."""
        inputs = self.task.test_inputs
        return None if inputs is None else self.exact.tensor(inputs)

    @cached_property
    def entries(self) -> tuple[Integers, Integers]:
        """Rows and columns of a few entries of a kernel, off the diagonal if there are any."""
        n = self.model.task.n_samples
        rows, columns = np.triu_indices(n, k=min(1, n - 1))
        chosen = np.random.default_rng(0).permutation(len(rows))[:_N_ENTRIES]
        return rows[chosen].astype(np.int64), columns[chosen].astype(np.int64)

    @cached_property
    def test_entries(self) -> Integers:
        """A few entries of the test outputs, counted through."""
        inputs = self.task.test_inputs
        size = 0 if inputs is None else len(inputs) * self.model.task.n_outputs
        return np.sort(np.random.default_rng(0).permutation(size)[:_N_ENTRIES])

    @cached_property
    def _classes(self) -> Integers:
        """The class of each input, (P,); without labels those of one target, in order of appearance."""
        if self.task.labels is not None:
            return self.task.labels
        _, first, member = np.unique(self.task.targets, axis=0, return_index=True, return_inverse=True)
        return first.argsort().argsort().astype(np.int64)[member.reshape(-1)]

    @cached_property
    def _n_classes(self) -> int:
        n = len(np.unique(self._classes))
        return n if n <= _MOST_CLASSES else 0

    @cached_property
    def class_weights(self) -> Tensor:
        """What averages over the inputs of each class, (P, n_classes)."""
        return self.exact.tensor(class_means(np.eye(self.model.task.n_samples), self._classes))

    @cached_property
    def pairs_of_classes(self) -> tuple[Integers, Integers]:
        """Pairs of classes, each with itself too; none if there are many classes."""
        first, second = np.triu_indices(self._n_classes)
        return first.astype(np.int64), second.astype(np.int64)

    @cached_property
    def code_weights(self) -> Tensor | None:
        """2^k for class k: what makes a number of a code. None where there are no codes to count."""
        if self._n_classes == 0 or self.model.nonlinearity.is_linear:
            return None
        return 2 ** torch.arange(self._n_classes, device=self.device)

    @cached_property
    def threshold(self) -> float:
        """The middle of phi's range over the prior, above which a neuron counts as active."""
        scale = math.sqrt(float(np.diagonal(self.model.input_kernel).max()))
        values = np.asarray(self.model.nonlinearity(scale * np.linspace(-3.0, 3.0, 61)))
        return 0.5 * float(values.min() + values.max())


@frozen(eq=False)
class _View:
    """One draw of all chains, and what is to be known of it. Nothing depends on the order of neurons."""

    recorder: Recorder
    weights: tuple[Tensor, ...]
    readouts: Tensor
    draw: int

    @cached_property
    def layers(self) -> tuple[Tensor, ...]:
        """phi(z^l) on the training inputs, l = 1 ... L, each (C, N, P)."""
        exact = self.recorder.exact
        return hidden_layers(self.weights, exact.inputs, self.recorder.model.nonlinearity).activations

    @cached_property
    def test_features(self) -> Tensor | None:
        """phi(z^L) on the test inputs, (C, N, n)."""
        recorder, (first, *deeper) = self.recorder, self.weights
        if recorder.test_inputs is None:
            return None
        pairs = zip(first.cpu().numpy(), recorder.seeds, strict=True)
        whole = np.stack([recorder.reduction.complete(w, seed, self.draw) for w, seed in pairs])
        weights = [recorder.exact.tensor(whole), *deeper]
        return hidden_layers(weights, recorder.test_inputs, recorder.model.nonlinearity).features

    @cached_property
    def _posterior(self) -> ReadoutPosterior:
        return self.recorder.exact.readout_posterior(self.layers[-1])

    @cached_property
    def dual_field(self) -> Tensor:
        """t, (C, P, m)."""
        model = self.recorder.model
        return self._posterior.solution * (1.0 if model.is_lazy else 1.0 / model.width)

    @cached_property
    def _test_outputs(self) -> tuple[Tensor, Tensor] | None:
        """Mean (C, n, m) and variance (C, n) given the features."""
        features = self.test_features
        return None if features is None else self._posterior.predict(features)

    def traces(self) -> Iterator[tuple[str, Tensor]]:
        """Numbers that tell whether the chains have converged, (C, ...)."""
        model, exact = self.recorder.model, self.recorder.exact
        f = outputs(self.readouts, self.layers[-1], model.is_lazy)
        yield "training_error", ((f - exact.tensor(exact.targets)) ** 2).mean((-2, -1))
        yield "readout_square", (self.readouts**2).mean((-2, -1))
        yield "dual_field_square", (self.dual_field**2).mean((-2, -1))
        for layer, phi in enumerate(self.layers, 1):
            yield from self._kernel_traces(layer, phi)
        if self.recorder.code_weights is not None:
            yield "code_shares", self._code_shares(self.layers[-1], self.recorder.code_weights)
        if self._test_outputs is not None:
            yield "test_output", self._test_outputs[0].flatten(1)[:, self.recorder.test_entries]

    def _kernel_traces(self, layer: int, phi: Tensor) -> Iterator[tuple[str, Tensor]]:
        rows, columns = self.recorder.entries
        yield f"kernel_trace_{layer}", (phi**2).mean((1, 2))
        yield f"kernel_entries_{layer}", (phi[..., rows] * phi[..., columns]).mean(1)
        first, second = self.recorder.pairs_of_classes
        if len(first):
            means = phi @ self.recorder.class_weights  # (C, N, n_classes)
            yield f"kernel_blocks_{layer}", (means[..., first] * means[..., second]).mean(1)

    def _code_shares(self, phi: Tensor, code_weights: Tensor) -> Tensor:
        """The share of neurons with each code, (C, 2^n_classes), in the order of binary numbers."""
        active = (phi @ self.recorder.class_weights) > self.recorder.threshold
        code = (active * code_weights).sum(-1, keepdim=True)  # (C, N, 1)
        every = torch.arange(2 ** len(code_weights), device=code.device)
        return (code == every).double().mean(1)

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """Of which the mean is kept, (C, ...)."""
        for layer, phi in enumerate(self.layers, 1):
            yield f"kernel_{layer}", phi.mT @ phi / self.recorder.model.width
        yield "dual_field", self.dual_field
        for name, (_, variance) in self._outputs().items():
            yield f"{name}_noise", variance

    def spreading(self) -> Iterator[tuple[str, Tensor]]:
        """Of which mean and spread are kept, (C, ...)."""
        for name, (mean, _) in self._outputs().items():
            yield f"{name}_output", mean

    def _outputs(self) -> dict[str, tuple[Tensor, Tensor]]:
        found = {"training": self._training_outputs}
        return found if self._test_outputs is None else found | {"test": self._test_outputs}

    @cached_property
    def _training_outputs(self) -> tuple[Tensor, Tensor]:
        return self._posterior.predict(self.layers[-1])
