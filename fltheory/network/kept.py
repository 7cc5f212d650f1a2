"""The networks drawn, as far as they were kept, and what they answer: one draw of all chains at a time."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from attrs import frozen
from torch import Tensor

from fltheory.model import Model
from fltheory.network.draws import Draws
from fltheory.network.forward import hidden_layers, outputs
from fltheory.network.reduction import Reduction
from fltheory.network.streaming import SPREAD, pooled_variance
from fltheory.network.target import IntegratedTarget
from fltheory.numerics.validation import Array, read_only, sealed
from fltheory.representation import Prediction, nearest_class


@frozen(eq=False)
class KeptNetworks:
    """What ``PosteriorSamples`` are asked, of checked arguments.

    Where the weights were kept the networks are run again; else the averages taken while sampling answer
    what they can. Attributes are those of ``PosteriorSamples``. Inputs are (n, N0); None are the training
    inputs.
    """

    model: Model
    reduction: Reduction
    draws: Draws
    seeds: tuple[int, ...]
    targets: Array

    @property
    def has_weights(self) -> bool:
        """Whether the networks can be run again."""
        return bool(self.draws.weights)

    @property
    def readouts(self) -> Array:
        """a, shape (C, D, N, m)."""
        if self.draws.readouts is None:
            raise _missing("readouts", "'readouts' or keep='all'")
        return self.draws.readouts

    def average(self, name: str) -> Array:
        """Over the draws of each chain, taken while sampling, (C, ...)."""
        if name not in self.draws.means:
            raise _missing(f"the average {name!r}", "'all'")
        return self.draws.means[name]

    # Running the networks again ----------------------------------------------------------------

    @cached_property
    def _exact(self) -> IntegratedTarget:
        return IntegratedTarget(self.reduction.model, targets=self.targets)

    def weights_of(self, draw: int) -> tuple[Array, ...]:
        """W^1 ... W^L of one draw, each (C, N, N_in)."""
        first, *deeper = self._seen_weights(draw)
        seen = zip(first, self.seeds, strict=True)
        return np.stack([self.reduction.complete(w, seed, draw) for w, seed in seen]), *deeper

    def _seen_weights(self, draw: int) -> tuple[Array, ...]:
        """W' and W^2 ... W^L of one draw: enough for the training inputs."""
        if not self.has_weights:
            raise _missing("activations, or answers on new inputs", "'all'")
        return tuple(w[:, draw] for w in self.draws.weights)

    def features(self, inputs: Array | None, layer: int | None = None) -> Iterator[Tensor]:
        """phi(z^layer), of the last layer unless given: (C, N, n) for each draw."""
        signal = self._exact.inputs if inputs is None else self._exact.tensor(inputs)
        for draw in range(self.draws.n_draws):
            weights = self._seen_weights(draw) if inputs is None else self.weights_of(draw)
            tensors = [self._exact.tensor(w) for w in weights[:layer]]
            yield hidden_layers(tensors, signal, self.model.nonlinearity).features

    def network(self, chain: int, draw: int, layer: int) -> tuple[Array, Array, Array]:
        """Preactivations, activations (N, P) and readouts (N, m) of one network."""
        weights = [self._exact.tensor(w[[chain]]) for w in self._seen_weights(draw)[:layer]]
        layers = hidden_layers(weights, self._exact.inputs, self.model.nonlinearity)
        return layers.preactivations[-1][0].numpy(), layers.features[0].numpy(), self.readouts[chain, draw]

    def outputs(self, inputs: Array | None) -> Iterator[Array]:
        """f with the readouts drawn, (C, n, m) for each draw."""
        for draw, phi in enumerate(self.features(inputs)):
            a = self._exact.tensor(self.readouts[:, draw])
            yield outputs(a, phi, self.model.is_lazy).numpy()

    def conditional_outputs(self, inputs: Array | None) -> Iterator[tuple[Array, Array]]:
        """Mean (C, n, m) and variance (C, n) of the outputs given the features, for each draw."""
        task, new = self.model.task, inputs
        for phi in self.features(None if new is None else np.concatenate([task.inputs, new])):
            training, asked = phi[..., : task.n_samples], phi if new is None else phi[..., task.n_samples :]
            mean, variance = self._exact.readout_posterior(training).predict(asked)
            yield mean.numpy(), variance.numpy()

    # Averages ----------------------------------------------------------------------------------

    def chain_kernels(self, layer: int, inputs: Array | None) -> Array:
        """The kernel averaged over the draws of each chain, (C, n, n)."""
        if inputs is None and not self.has_weights:
            return self.average(f"kernel_{layer}")
        total = sum((phi.mT @ phi).numpy() for phi in self.features(inputs, layer))
        return np.asarray(total / (self.draws.n_draws * self.model.width))

    def chain_outputs(self, inputs: Array | None) -> Array:
        """The mean output averaged over the draws of each chain, (C, n, m)."""
        if not self.has_weights:
            return self.average(f"{self._known(inputs)}_output")
        return np.asarray(np.mean([mean for mean, _ in self.conditional_outputs(inputs)], axis=0))

    def chain_dual_fields(self) -> Array:
        """t averaged over the draws of each chain, (C, P, m)."""
        return self.dual_field_draws.mean(1) if self.has_weights else self.average("dual_field")

    def predict(self, inputs: Array | None) -> Prediction:
        """Mean and variance of the output, the readouts averaged."""
        if not self.has_weights:
            return self._averaged_prediction(inputs)
        draws = list(self.conditional_outputs(inputs))
        means = np.stack([mean for mean, _ in draws])  # (D, C, n, m)
        noise = np.mean([variance.mean(0) for _, variance in draws], axis=0)  # (n,)
        return self._prediction(means.mean((0, 1)), noise[:, None] + means.var((0, 1)))

    def _averaged_prediction(self, inputs: Array | None) -> Prediction:
        """From what was averaged while sampling."""
        name = self._known(inputs)
        means = self.average(f"{name}_output")  # (C, n, m)
        noise = self.average(f"{name}_noise").mean(0)[:, None]
        spread = pooled_variance(means, self.average(f"{name}_output{SPREAD}"), self.draws.n_draws)
        return self._prediction(means.mean(0), noise + spread)

    def _known(self, inputs: Array | None) -> str:
        """What the inputs are, on which averages were taken while sampling."""
        test = self.model.task.test_inputs
        if inputs is not None and (test is None or not np.array_equal(inputs, test)):
            raise _missing("predictions on inputs other than those of the task", "'all'")
        return "training" if inputs is None else "test"

    def _prediction(self, mean: Array, variance: Array) -> Prediction:
        return Prediction(read_only(mean), read_only(variance), nearest_class(self.model.task, mean))

    @cached_property
    def dual_field_draws(self) -> Array:
        """t of each network, (C, D, P, m)."""
        if "dual_field" in self.draws.traces:
            return self.draws.traces["dual_field"]
        scale = 1.0 if self.model.is_lazy else 1.0 / self.model.width
        posteriors = (self._exact.readout_posterior(phi) for phi in self.features(None))
        return joined(scale * posterior.solution.numpy() for posterior in posteriors)

    @property
    def dual_field(self) -> Array:
        """t averaged over all networks, (P, m)."""
        return read_only(self.chain_dual_fields().mean(0))


def joined(rows: Iterable[Array]) -> Array:
    """What each draw gives, (C, ...), as one read-only array (C, D, ...)."""
    return sealed(np.stack(list(rows), axis=1))


def _missing(what: str, keep: str) -> ValueError:
    return ValueError(f"keep: expected samples drawn with keep={keep} for {what}, got some that kept less")
