"""``DeepNetworkPosterior``: the only room that sees both sides, theory and samples."""

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, field, frozen

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.meanfield.solver import Settings, solve_model
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
)
from fltheory.prior import GaussianPrior, Prior
from fltheory.task import Task, check_task

if TYPE_CHECKING:  # torch is imported only where a network is sampled
    from fltheory.network.samples import PosteriorSamples
    from fltheory.sampler.base import Sampler

_WIDEST = 2**53  # integers up to here are exact in float64


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
            particles (any phi, and where the former fails); "ep" or "particles": that engine.
            ``MeanFieldSolution.agreement`` says how far a second answer is.
        start
            A solution to start from, for the same number of inputs and outputs.
        finite_width
            Whether to add the terms of order 1/N at this posterior's width: for linear networks of any
            depth, (9'), and for one hidden layer where no neuron condenses, (17).
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
        tolerance = check_real("tolerance", tolerance, minimum=0.0, exclusive=True)
        max_iterations = check_integer("max_iterations", max_iterations)
        seed = check_integer("seed", seed, minimum=0)
        check_flag("progress", progress, optional=True)
        with progress_bar(None, "mean field", progress) as bar:

            def report(residual: float) -> None:
                bar.set_postfix(residual=f"{residual:.1e}", refresh=False)
                bar.update()

            settings = Settings(method, start, tolerance, max_iterations, seed, finite_width, report)
            return solve_model(self.model, settings)

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
        start: "str | PosteriorSamples" = "prior",
        seed: int = 0,
        coordinates: str = "auto",
        device: str = "cpu",
        dtype: str = "float64",
        thin: int = 1,
        progress: bool | None = None,
        targets: object = None,
    ) -> "PosteriorSamples":
        """Networks of finite width, drawn from this posterior.

        Parameters
        ----------
        sampler
            The Markov kernel; this posterior's own, or ``HMC``, if None.
        n_draws, n_chains, thin
            D draws from each of C chains, ``thin`` Markov steps apart.
        n_warmup
            Steps before the first draw; None: chosen.
        start
            "prior", from where the chains are cooled down to T, or earlier samples.
        seed
            Of everything random.
        coordinates
            "auto", "integrated" (readouts integrated out, exact at T = 0) or "weights".
        device, dtype
            Of the torch computation; "float64" or "float32".
        progress
            Whether to show progress; None: on a terminal.
        targets
            Y in place of the task's, (P, m), or one a chain, (C, P, m).

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above; at T = 0 if the width is below P.
        """
        from fltheory.network.sampling import sample_network

        _check_sampler("sampler", sampler)
        return sample_network(
            self.model,
            self.sampler if sampler is None else sampler,
            n_draws=n_draws,
            n_chains=n_chains,
            n_warmup=n_warmup,
            start=start,
            seed=seed,
            coordinates=coordinates,
            device=device,
            dtype=dtype,
            thin=thin,
            progress=progress,
            targets=targets,
        )
