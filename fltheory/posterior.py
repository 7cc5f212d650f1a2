"""``DeepNetworkPosterior``: the only room that sees both sides, theory and samples."""

import math
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, field, frozen

from fltheory.guidance import guide
from fltheory.meanfield.fractions import ImposedFractions, check_code_fractions
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.meanfield.solver import solve_model
from fltheory.model import Model
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.progress import progress_bar
from fltheory.numerics.validation import (
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    check_real,
    check_sequence,
    checked,
    describe,
)
from fltheory.prior import GaussianPrior, Prior
from fltheory.representation import Neurons
from fltheory.task import Task, check_task

if TYPE_CHECKING:  # torch is imported only where a network is sampled
    from collections.abc import Sequence
    from os import PathLike

    from fltheory.network.moves.base import Advice
    from fltheory.network.reduction import Reduction
    from fltheory.network.samples import PosteriorSamples
    from fltheory.sampler.base import Sampler

_WIDEST = 2**53  # integers up to here are exact in float64
_SEEDS = 2**32  # of which one is drawn for each network


def _check_nonlinearity(name: str, value: object) -> Nonlinearity:
    phi: Nonlinearity = check_instance(name, value, Nonlinearity)
    probe = np.linspace(-3.0, 3.0, 7)
    values = np.asarray(phi(probe))
    if values.shape != probe.shape or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(
            f"{name}: expected an elementwise function with finite real values, got {values!r} at "
            f"{probe} from {phi!r}"
        )
    return phi


def _check_sampler(name: str, value: object) -> Any:
    if value is None:
        return None
    from fltheory.sampler.base import Sampler

    return check_instance(name, value, Sampler)


@frozen
class DeepNetworkPosterior:
    """The Bayes posterior of a wide fully-connected network, docs/theory.md (1) and (2).

    Parameters
    ----------
    task
        What is learned.
    nonlinearity
        phi.
    prior
        Of the weights.
    n_hidden_layers
        L.
    width
        N, neurons a hidden layer.
    temperature
        T. At 0 the network fits its targets exactly; infinity is the prior.
    readout_scaling
        "non-lazy" divides the output by N, "lazy" by sqrt(N).
    sampler
        What ``sample`` uses when given none; None: chosen.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    task: Task = field(converter=checked(check_task))
    nonlinearity: Nonlinearity = field(converter=checked(_check_nonlinearity))
    prior: Prior = field(factory=GaussianPrior, converter=checked(check_instance, kind=Prior))
    n_hidden_layers: int = field(default=1, converter=checked(check_integer, maximum=1000))
    width: int = field(default=500, converter=checked(check_integer, maximum=_WIDEST))
    temperature: float = field(default=0.0, converter=checked(check_real, minimum=0.0, allow_inf=True))
    readout_scaling: str = field(
        default="non-lazy", converter=checked(check_choice, choices=("non-lazy", "lazy"))
    )
    sampler: "Sampler | None" = field(default=None, converter=checked(_check_sampler))

    def __attrs_post_init__(self) -> None:
        self.model  # noqa: B018  refuses a prior that does not fit

    @cached_property
    def model(self) -> Model:
        """The posterior with all scalings resolved."""
        is_lazy = self.readout_scaling == "lazy"
        return Model(
            task=self.task,
            nonlinearity=self.nonlinearity,
            width=self.width,
            temperature=self.temperature,
            weight_variances=self._weight_variances(),
            readout_variance=check_real(
                "prior.effective_readout_variance",
                self.prior.effective_readout_variance(
                    self.task.n_samples,
                    self.n_hidden_layers,
                    is_linear=self.nonlinearity.is_linear,
                    is_lazy=is_lazy,
                ),
                minimum=0.0,
                exclusive=True,
            ),
            is_lazy=is_lazy,
        )

    def _weight_variances(self) -> tuple[float, ...]:
        name, given = "prior.weight_variances", self.prior.weight_variances(self.n_hidden_layers)
        variances = check_sequence(name, given, check_real, minimum=0.0, exclusive=True)
        if len(variances) != self.n_hidden_layers:
            raise ValueError(
                f"{name}: expected one variance for each of {self.n_hidden_layers} hidden layers, "
                f"got {len(variances)}"
            )
        return variances

    def at_width(self, width: int) -> "DeepNetworkPosterior":
        """The same posterior at another width and the same N T, the theory's only temperature.

        Raises
        ------
        TypeError, ValueError
            If ``width`` is no positive integer, or the temperature there is beyond float64.
        """
        width = check_integer("width", width, maximum=_WIDEST)
        factor = 1.0 if self.readout_scaling == "lazy" else self.width / width
        temperature = self.temperature * factor
        if temperature != self.temperature and temperature in (0.0, math.inf):
            raise ValueError(
                f"width: expected one with a temperature within float64 at the same N T, got {width} "
                f"(from T = {self.temperature:g} at width {self.width} to {temperature:g})"
            )
        return evolve(self, width=width, temperature=temperature)

    def solve(
        self,
        method: str = "auto",
        start: MeanFieldSolution | None = None,
        finite_width: bool = False,
        code_fractions: object = None,
        tolerance: float = 1e-6,
        max_iterations: int = 60,
        seed: int = 0,
        progress: bool | None = None,
    ) -> MeanFieldSolution:
        """The mean-field theory: this posterior at infinite width.

        Parameters
        ----------
        method
            "auto": closed form for linear and lazy networks, exact integrals for orthogonal inputs, for
            other kernels expectation propagation (bounded phi), held against exact neurons, or
            particles (any phi, and where the former fails); "ep" or "particles": that engine. Two hidden
            layers of bounded phi on other kernels: a lattice in the latent of the first, which is solved
            to a relative 1e-3, and EP, for at most three outputs or so ("ep"); or particles of both, as
            for more layers there, and for more than four classes of orthogonal inputs.
            ``MeanFieldSolution.agreement`` says how far a second answer is.
        start
            A solution to start from, for the same number of inputs and outputs.
        finite_width
            Whether to add the terms of order 1/N at this posterior's width: for linear networks of any
            depth, (9'), and for one hidden layer where no neuron condenses, (17).
        code_fractions
            The theory of neurons that are frozen on codes, at the fractions given: a mapping from code
            (0 or 1 a class) to fraction, or the ``Codes`` or ``CodeFractions`` of networks. For bounded phi.
        tolerance
            On the residual, the largest absolute entry of Y - N T t - <phi a^T>.
        max_iterations
            Newton steps of one attempt; rounds of particles at one N T.
        seed
            Of the search for branches and of quasi-random points.
        progress
            Whether to show progress; None: on a terminal.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, the theory does not cover this posterior, or T = 0 and
            the targets cannot be fitted.
        ConvergenceError
            If the tolerance is not reached; it carries the last iterate.
        """
        check_choice("method", method, ("auto", "ep", "particles"))
        check_instance("start", start, MeanFieldSolution, optional=True)
        finite_width = check_flag("finite_width", finite_width)
        self._check_start(start)
        fractions = self._check_fractions(code_fractions, method, finite_width)
        tolerance = check_real("tolerance", tolerance, minimum=0.0, exclusive=True)
        max_iterations = check_integer("max_iterations", max_iterations)
        seed = check_integer("seed", seed, minimum=0)
        check_flag("progress", progress, optional=True)
        with progress_bar(None, "mean field", progress) as bar:

            def report(residual: float) -> None:
                bar.set_postfix(residual=f"{residual:.1e}", refresh=False)
                bar.update()

            settings = Settings(
                method, start, tolerance, max_iterations, seed, finite_width, report, fractions
            )
            return solve_model(self.model, settings)

    def _check_fractions(self, value: object, method: str, finite_width: bool) -> ImposedFractions | None:
        fractions = check_code_fractions("code_fractions", value, self.model)
        is_alone = method == "particles" and self.n_hidden_layers == 1
        if fractions is not None and (finite_width or is_alone or math.isinf(self.temperature)):
            raise ValueError(
                "code_fractions: expected None with finite_width=True, an infinite temperature or, for one "
                f"hidden layer, method='particles', got {describe(value)}"
            )
        return fractions

    def _check_start(self, start: MeanFieldSolution | None) -> None:
        if start is not None and start.dual_field.shape != self.task.targets.shape:
            raise ValueError(
                f"start: expected a solution for targets of shape {self.task.targets.shape}, got one "
                f"for {start.dual_field.shape}"
            )

    def sample(
        self,
        sampler: "Sampler | None" = None,
        n_draws: int = 200,
        n_chains: int = 4,
        n_warmup: int | None = None,
        start: "str | PosteriorSamples | Sequence[Neurons | Sequence[Neurons]]" = "prior",
        seed: int = 0,
        coordinates: str = "auto",
        device: str = "cpu",
        dtype: str = "float64",
        thin: int = 1,
        keep: str = "all",
        chains_per_batch: int | None = None,
        checkpoint: "str | PathLike[str] | None" = None,
        n_jobs: int = 1,
        progress: bool | None = None,
        targets: object = None,
    ) -> "PosteriorSamples":
        """Networks of finite width, drawn from this posterior.

        Parameters
        ----------
        sampler
            The Markov kernel; this posterior's own if None. Where that is None too: ``HMC``, for one
            nonlinear hidden layer with moves that change codes (bounded phi) or merge strong neurons (phi
            with a slope at infinity), which freeze otherwise, and tempering where it is so cold that no
            single neuron can change its code. Without a solution of the theory, ``HMC`` alone.
        n_draws, n_chains, thin
            D draws from each of C chains, ``thin`` Markov steps apart.
        n_warmup
            Steps before the first draw; None: chosen.
        start
            "prior", from where the chains are cooled down to T; "theory", networks of independent
            neurons of the theory, or such ``Neurons``, one network a chain (if deep, the ``Neurons`` of each
            layer; needs P <= N); or earlier samples, from their last draws.
        seed
            Of everything random.
        coordinates
            What is sampled: "integrated" (which "auto" chooses; the readouts integrated out, of the first
            layer only what the training inputs see: exact at T = 0), "hidden weights" (readouts
            integrated out), "preactivations" (the other reduction alone) or "weights" (all of them). The
            latter two have no moves for single neurons, and need T > 0.
        device, dtype
            Of the torch computation; "float64" or "float32". In the latter the training error at T = 0 is
            about 1e-14 for one hidden layer, and much more for kernels of deep networks that are nearly
            singular.
        keep
            "all": the networks; "readouts": their readouts; "statistics": neither. With the latter two
            kernels, outputs and the dual field are averaged while sampling, at a memory that hardly
            grows with ``n_draws``.
        chains_per_batch
            Chains that move together; None: all. It decides the numbers drawn, ``n_jobs`` does not.
        checkpoint
            A folder where the run is saved, at least once a minute; the same call goes on from there, to
            the same numbers as without a break, or with more ``n_draws`` to more of them. What the theory
            advised is saved too, and not asked for again. Ctrl-C ends the run with the draws there are and
            an ``InterruptedWarning``, but is raised where ``n_jobs`` is not 1: each process saves what it
            has, and the same call goes on.
        n_jobs
            Processes for the batches, -1: one a core; of another backend, like a cluster, within ``with
            joblib.parallel_config(backend=...)``. A ``UserWarning`` tells of more of them than batches.
        progress
            Whether to show progress; None: on a terminal.
        targets
            Y in place of the task's, (P, m), or one a chain, (C, P, m).

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above; at T = 0 if the width is below P.
        MemoryError
            If the draws would take more than half of the machine's memory.
        CheckpointError
            If ``checkpoint`` is of another run, naming what differs, or damaged.
        """
        from fltheory.network.sampling import sample_network

        return sample_network(
            self.model,
            self.sampler if _check_sampler("sampler", sampler) is None else sampler,
            n_draws=n_draws,
            n_chains=n_chains,
            n_warmup=n_warmup,
            start=start,
            seed=seed,
            coordinates=coordinates,
            device=device,
            dtype=dtype,
            thin=thin,
            keep=keep,
            chains_per_batch=chains_per_batch,
            checkpoint=checkpoint,
            n_jobs=n_jobs,
            progress=progress,
            targets=targets,
            advise=partial(self._advice, progress),
            draw_neurons=partial(self._neurons, progress),
        )

    @cached_property
    def _theories(self) -> dict[float, MeanFieldSolution]:
        """Those that were solved for the sampler, by temperature."""
        return {}

    def _theory(self, progress: bool | None, temperature: float) -> MeanFieldSolution:
        if temperature not in self._theories:
            there = evolve(self, temperature=temperature)
            self._theories[temperature] = there.solve(progress=progress)
        return self._theories[temperature]

    def _advice(self, progress: bool | None, sampler: "Sampler | None", reduction: "Reduction") -> "Advice":
        """What the theory tells the sampler."""
        return guide(self.model, sampler, partial(self._theory, progress), reduction)

    def _neurons(self, progress: bool | None, seeds: "Sequence[int]") -> tuple[tuple[Neurons, ...], ...]:
        """Networks of neurons of the theory, one a seed, layer by layer."""
        theory, layers = self._theory(progress, self.temperature), range(1, self.n_hidden_layers + 1)
        return tuple(
            tuple(theory.neurons(self.width, k, seed=seed + _SEEDS * (k - 1)) for k in layers)
            for seed in seeds
        )
