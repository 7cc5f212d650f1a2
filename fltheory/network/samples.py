"""Networks drawn from the posterior, and what they say of the representations."""

from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen

from fltheory.model import Model, check_same_model
from fltheory.network.chains import Moment
from fltheory.network.diagnostics import Diagnostics, diagnose, functionals_of
from fltheory.network.draws import Draws
from fltheory.network.kept import KeptNetworks, joined
from fltheory.network.plan import Plan
from fltheory.network.reduction import Reduction
from fltheory.network.runs import check_jobs, gathered, run_groups
from fltheory.numerics.validation import (
    Array,
    check_array,
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    describe,
    read_only,
)
from fltheory.representation import Neurons, Prediction, Representation
from fltheory.sampler.base import Sampler


@frozen(eq=False)
class Continuation:
    """What it takes to go on: the run, and where each of its batches of chains is."""

    plan: Plan
    moments: tuple[Moment, ...]

    def networks(self) -> tuple[tuple[Array, ...], Array]:
        """W^1 ... W^L as the chains know them, each (C, N, N_in), and readouts (C, N, m), drawn anew."""
        target = self.plan.target
        x = torch.cat([moment.state.position for moment in self.moments])
        generator = torch.Generator(target.device).manual_seed(self.plan.seed)
        readouts = target.draw_readouts(x, generator).double().cpu().numpy()
        return tuple(w.double().cpu().numpy() for w in target.weights(x)[:-1]), readouts


@frozen(eq=False, repr=False)
class PosteriorSamples(Representation):
    """D networks from each of C chains.

    Answers on any inputs are averages over the networks, computed one draw after another. What depends
    on the readouts is averaged over their exact posterior given the features, which is less noisy than
    the readouts drawn (Rao-Blackwell).

    Sampled with ``keep="statistics"`` or ``"readouts"`` there are no weights: kernels, predictions and
    the dual field are the averages taken while sampling, on the training and test inputs of the task,
    and what cannot be answered from them is refused by a ``ValueError``.

    Attributes
    ----------
    model
        The network and its task.
    reduction
        What the first layer of the draws is of: all of it, or what the training inputs see.
    draws
        What was kept, and the statistics of the sampler.
    seeds
        One a chain, for the part of the first layer that the training inputs do not see.
    targets
        Y as sampled: those of the task, or (C, P, m) for one set of targets a chain.
    continuation
        Where the chains are, for ``resume``; None for samples loaded without their sampler.
    """

    model: Model
    reduction: Reduction
    draws: Draws
    seeds: tuple[int, ...]
    targets: Array = field()
    continuation: Continuation | None = None

    @targets.default
    def _task_targets(self) -> Array:
        return self.model.task.targets

    def __repr__(self) -> str:
        return (
            f"PosteriorSamples({self.model.nonlinearity!r}, L={self.model.n_hidden_layers}, "
            f"N={self.model.width}, T={self.model.temperature:g}, "
            f"{self.draws.size}{self._doubt})"
        )

    @cached_property
    def _doubt(self) -> str:
        doubts = self._diagnostics.doubts
        return f"; not converged: {doubts[0]}" if doubts else ""

    @property
    def weights(self) -> tuple[Array, ...]:
        """W^1 ... W^L, each (C, D, N, N_in): computed and as large as that."""
        rows = (self.weights_of(draw)[0] for draw in range(self.n_draws))
        return joined(rows), *self.draws.weights[1:]

    def weights_of(self, draw: int) -> tuple[Array, ...]:
        """W^1 ... W^L of one draw, each (C, N, N_in)."""
        return self._kept.weights_of(draw)

    def last_networks(self) -> tuple[tuple[Array, ...], Array]:
        """W^1 ... W^L, each (C, N, N_in), and a, (C, N, m), of the last draw of each chain.

        Where the weights were not kept they are those of where the chains are; readouts that were not are
        drawn anew.

        Raises
        ------
        ValueError
            If the samples know neither.
        """
        if self._kept.has_weights or self.continuation is None:
            return self.weights_of(self.n_draws - 1), self.readouts[:, -1]
        weights, readouts = self.continuation.networks()
        first = [
            self.reduction.complete(w, seed, self.n_draws - 1)
            for w, seed in zip(weights[0], self.seeds, strict=True)
        ]
        kept = readouts if self.draws.readouts is None else self.draws.readouts[:, -1]
        return (np.stack(first), *weights[1:]), kept

    @property
    def sampler(self) -> Sampler | None:
        """The Markov kernel that drew them; None where it is not known."""
        return None if self.continuation is None else self.continuation.plan.sampler

    @property
    def readouts(self) -> Array:
        """a, shape (C, D, N, m)."""
        return self._kept.readouts

    @property
    def n_chains(self) -> int:
        """C."""
        return self.draws.n_chains

    @property
    def n_draws(self) -> int:
        """D, draws a chain."""
        return self.draws.n_draws

    @cached_property
    def acceptance_rate(self) -> Array:
        """Mean acceptance probability of each chain, shape (C,)."""
        return read_only(self.draws.statistics.acceptance.mean(1))

    @cached_property
    def _kept(self) -> KeptNetworks:
        return KeptNetworks(self.model, self.reduction, self.draws, self.seeds, self.targets)

    def _inputs(self, inputs: object) -> Array | None:
        """Checked inputs (n, N0); None are the training inputs."""
        return None if inputs is None else self.model.check_inputs(inputs)

    # Representations ---------------------------------------------------------------------------

    def functional(
        self, function: Callable[[Array], Any], layer: int | None = None, inputs: object = None
    ) -> Array:
        """A function of the activations of a layer in each network, without storing activations.

        Parameters
        ----------
        function
            From activations (C, N, n), one network a chain, to finite real numbers (C, ...) of the
            same shape for every draw.
        layer
            1 to L; L if None.
        inputs
            Shape (n, N0); the training inputs if None.

        Returns
        -------
        Array
            Shape (C, D, ...).

        Raises
        ------
        TypeError, ValueError
            If an argument or a result of the function is not as above.
        """
        if not callable(function):
            raise TypeError(f"function: expected a function of activations, got {describe(function)}")
        layer = None if layer is None else self.model.check_layer(layer, lowest=1)
        rows: list[Array] = []
        for phi in self._kept.features(self._inputs(inputs), layer):
            shape = rows[0].shape if rows else (self.n_chains, ...)
            rows.append(check_array("function (its result)", function(phi.numpy()), shape, allow_bool=True))
        return joined(rows)

    def activations(self, layer: int) -> Array:
        """phi(z^layer) on the training inputs, shape (C, D, N, P): as much memory as that takes."""
        layer = self.model.check_layer(layer, lowest=1)
        return joined(phi.numpy() for phi in self._kept.features(None, layer))

    def kernel(self, layer: int, inputs: object = None) -> Array:
        layer, x = self.model.check_layer(layer), self._inputs(inputs)
        if layer == 0:
            return self.model.input_kernel if x is None else read_only(self.model.kernel_between(x, x))
        return read_only(self._kept.chain_kernels(layer, x).mean(0))

    def chain_averages(self, quantity: str, layer: int | None = None, inputs: object = None) -> Array:
        """The average over the draws of each chain, (C, ...), however little of them was kept.

        Parameters
        ----------
        quantity
            "kernel", (C, n, n); "output", with the readouts averaged, (C, n, m); or "dual field", (C, P, m).
        layer
            Of the kernel, 1 to L; L if None.
        inputs
            Of kernel and output, (n, N0); the training inputs if None.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or what was kept does not tell.
        """
        check_choice("quantity", quantity, ("kernel", "output", "dual field"))
        x = self._inputs(inputs)
        if quantity == "dual field":
            return read_only(self._kept.chain_dual_fields())
        if quantity == "output":
            return read_only(self._kept.chain_outputs(x))
        layer = self.model.n_hidden_layers if layer is None else layer
        return read_only(self._kept.chain_kernels(self.model.check_layer(layer, lowest=1), x))

    def kernel_error(self, layer: int) -> Array:
        """The standard error of each entry of ``kernel(layer)``, (P, P), from how far the chains differ.

        Raises
        ------
        ValueError
            For one chain.
        """
        layer = self.model.check_layer(layer, lowest=1)
        if self.n_chains < 2:
            raise ValueError("kernel_error: expected at least two chains, got one")
        kernels = self.chain_averages("kernel", layer)
        return read_only(kernels.std(0, ddof=1) / np.sqrt(self.n_chains))

    def neurons(self, n: int, layer: int, seed: int = 0) -> Neurons:
        """Draw n neurons of one layer (1 to L), all of one network if n is at most its width.

        More are pooled from as few networks as it takes.

        Raises
        ------
        ValueError
            If all networks together have fewer than n neurons.
        """
        layer = self.model.check_layer(layer, lowest=1)
        width = self.model.width
        n = check_integer("n", n, maximum=self.n_chains * self.n_draws * width)
        rng = np.random.default_rng(check_integer("seed", seed, minimum=0))
        networks = rng.choice(self.n_chains * self.n_draws, -(-n // width), replace=False)
        chosen = rng.choice(len(networks) * width, n, replace=False)
        pool = [self._kept.network(*divmod(int(k), self.n_draws), layer) for k in networks]
        z, phi, a = (np.concatenate(parts)[chosen] for parts in zip(*pool, strict=True))
        readouts = read_only(a) if layer == self.model.n_hidden_layers else None
        return Neurons(activations=read_only(phi), preactivations=read_only(z), readouts=readouts)

    # Outputs -----------------------------------------------------------------------------------

    def outputs(self, inputs: object = None) -> Array:
        """f of each network with the readouts drawn, shape (C, D, n, m)."""
        return joined(self._kept.outputs(self._inputs(inputs)))

    @property
    def training_error(self) -> Array:
        """Mean square error on the training set, over inputs and outputs, shape (C, D)."""
        return self.draws.traces["training_error"]

    def mean_outputs(self, inputs: object = None) -> Array:
        """The mean output of each network given its features, its readouts averaged, (C, D, n, m)."""
        return joined(mean for mean, _ in self._kept.conditional_outputs(self._inputs(inputs)))

    def predict(self, inputs: object = None) -> Prediction:
        """Mean and variance of the output on inputs (n, N0), the training inputs if None.

        The mean over networks of the conditional means given the features; the variance is the
        mean of the conditional variances plus the variance of the conditional means.
        """
        return self._kept.predict(self._inputs(inputs))

    @property
    def dual_field_draws(self) -> Array:
        """t = C^{-1} Y / N (lazy: C^{-1} Y) of each network, shape (C, D, P, m); 0 at T = infinity.

        For T > 0 it is (Y - f) / (N T) with f the mean output given the features.
        """
        return self._kept.dual_field_draws

    @property
    def dual_field(self) -> Array:
        return self._kept.dual_field

    # The chains --------------------------------------------------------------------------------

    @cached_property
    def _diagnostics(self) -> Diagnostics:
        return diagnose(self.draws, temperature=self.model.temperature)

    def diagnostics(self, *others: "PosteriorSamples") -> Diagnostics:
        """Convergence of what does not depend on the order of neurons; divergences, stuck chains.

        Parameters
        ----------
        others
            More samples of the same posterior, whose chains are judged together with these: after other
            starts, R-hat then tells whether both runs have found the same.

        Raises
        ------
        TypeError, ValueError
            If ``others`` are not samples of the same posterior.
        """
        if not others:
            return self._diagnostics
        return diagnose(*self._together(others), temperature=self.model.temperature)

    def functionals(self, *others: "PosteriorSamples") -> dict[str, Array]:
        """What ``diagnostics`` judges: numbers of each network by name, (C, D), over the chains of all.

        Raises
        ------
        TypeError, ValueError
            If ``others`` are not samples of the same posterior.
        """
        return functionals_of(*self._together(others), temperature=self.model.temperature)

    def _together(self, others: "Sequence[PosteriorSamples]") -> list[Draws]:
        for i, other in enumerate(others):
            check_instance(f"others[{i}]", other, PosteriorSamples)
            check_same_model(f"others[{i}]", self.model, other.model)
        return [self.draws, *(other.draws for other in others)]

    def resume(self, n_draws: int, progress: bool | None = None, n_jobs: int = 1) -> "PosteriorSamples":
        """``n_draws`` more draws a chain, appended: as if all had been drawn in one run.

        They are not saved: a ``checkpoint`` is lengthened by calling ``sample`` again, with more draws.

        Raises
        ------
        ValueError
            If the samples do not know where their chains are.
        MemoryError
            If all draws would take more than half of the machine's memory.
        """
        n_draws = check_integer("n_draws", n_draws)
        n_jobs = check_jobs("n_jobs", n_jobs)
        check_flag("progress", progress, optional=True)
        if self.continuation is None:
            raise ValueError("resume: expected samples that keep the state of their chains, got none")
        plan, moments = self.continuation.plan, self.continuation.moments
        plan.check_memory(self.n_draws + n_draws)
        groups = plan.groups(moments, self.n_draws + n_draws)
        rows, means, moments = gathered(run_groups(groups, n_jobs, progress))
        on = Continuation(plan, moments)
        return evolve(self, draws=self.draws.continued(rows, means), continuation=on)

    def to_xarray(self) -> Any:
        """As an ``xarray.DataTree`` in the form of ArviZ: dimensions chain and draw.

        Group posterior holds what was kept of the networks and the traces, sample_stats what the sampler
        reported, observed_data inputs and targets.
        """
        from fltheory.network.export import to_tree

        return to_tree(self.draws, self.model.task)

    def to_arviz(self) -> Any:
        """The same as ``to_xarray``: what the functions of ArviZ take."""
        return self.to_xarray()

    def save(self, path: "str | PathLike[str]") -> None:
        from fltheory.network.saving import save

        save(self, path)
