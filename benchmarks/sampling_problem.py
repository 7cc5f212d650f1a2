"""What ``sampling_peers.py`` samples, what it looks at in a network, and our own samplers there."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

import fltheory as flt
from fltheory.network.diagnostics import Convergence
from fltheory.network.record import Recorder
from fltheory.network.reduction import Reduction
from fltheory.network.target import WeightTarget
from fltheory.numerics.validation import Array
from fltheory.representation import Neurons
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC

PHIS: Mapping[str, flt.Nonlinearity] = {"sigmoid": flt.Sigmoid(), "linear": flt.Linear()}
N_CHAINS = 4
_GROUPS = {
    "kernel": ("kernel_trace_1", "kernel_blocks_1"),
    "predictor": ("test_output",),
    "codes": ("code_shares",),
}
_TRACES = "traces/"
_RAREST_CODE = 0.01
_LARGEST_RHAT = 1.05
_CHUNK = 10  # draws between looks at the clock


@frozen(eq=False)
class Problem:
    """A posterior of networks with one hidden layer."""

    phi: str
    posterior: flt.DeepNetworkPosterior

    @classmethod
    def of(
        cls, phi: str, temperature: float, inputs: str, width: int, n_samples: int, n_inputs: int
    ) -> "Problem":
        """Three classes, one twice as large as the others, with orthogonal or random inputs."""
        task: flt.Task = flt.OrthogonalClassification(n_samples, (0.5, 0.25, 0.25), n_inputs)
        labels = np.argmax(task.targets, axis=1)
        x = task.inputs
        if inputs == "random":
            x = np.random.default_rng(0).standard_normal(x.shape)
        firsts = [int(np.argmax(labels == k)) for k in range(3)]
        new = np.stack([x[k] + x[k + 1] for k in firsts]) / np.sqrt(2.0)  # between two inputs of a class
        task = flt.ArrayTask(x, task.targets, labels, new, np.eye(3))
        return cls(phi, flt.DeepNetworkPosterior(task, PHIS[phi], width=width, temperature=temperature))

    @cached_property
    def plain(self) -> WeightTarget:
        """All weights, readouts included, whitened: what the peers sample."""
        return WeightTarget(self.posterior.model)

    @cached_property
    def _theory(self) -> flt.MeanFieldSolution:
        return self.posterior.solve(progress=False)

    def networks(self, seed: int) -> list[Neurons]:
        """One of independent neurons of the theory a chain."""
        width = self.posterior.width
        return [self._theory.neurons(width, 1, seed=1000 * seed + c) for c in range(N_CHAINS)]

    def positions(self, start: str, seed: int) -> Tensor:
        """Where the peers start, (C, dimension): draws from the prior, or networks of the theory."""
        model, generator = self.posterior.model, torch.Generator().manual_seed(seed)
        if start == "prior":
            shape = (N_CHAINS, self.plain.dimension)
            return torch.randn(shape, generator=generator, dtype=torch.float64)
        reduction, networks = Reduction.of(model), self.networks(seed)
        back = np.linalg.pinv(reduction.model.task.inputs).T * np.sqrt(reduction.model.task.n_inputs)
        seen = [network.preactivations @ back for network in networks]
        weights = np.stack([reduction.complete(w, seed, c) for c, w in enumerate(seen)])
        readouts = np.stack([np.asarray(network.readouts) for network in networks])
        return self.plain.position([self.plain.tensor(weights)], self.plain.tensor(readouts))

    @cached_property
    def _recorder(self) -> Recorder:
        model = self.posterior.model
        seeds = tuple(range(N_CHAINS))
        return Recorder(model.task, Reduction.none(model), model.task.targets, "cpu", seeds, "statistics")

    def traces(self, x: Tensor) -> dict[str, Array]:
        """What our samples trace, of the networks at positions (C, dimension): the same for all."""
        *weights, readouts = self.plain.weights(x)
        found, _ = self._recorder.rows(tuple(weights), readouts, 0, {})
        return {k.removeprefix(_TRACES): v.numpy() for k, v in found.items() if k.startswith(_TRACES)}


@frozen(eq=False)
class Run:
    """Traces (C, D, k), what warm-up and drawing took by ``clock``, and gradients a draw and chain."""

    traces: Mapping[str, Array]
    warm: Array
    drawn: Array
    gradients: float

    def summary(self) -> dict[str, object]:
        """Of each group of functionals the smallest ESS and the largest R-hat, and what it cost."""
        found: dict[str, object] = {
            **dict(zip(("warm_seconds", "warm_wall"), self.warm.tolist(), strict=True)),
            **dict(zip(("draw_seconds", "draw_wall"), self.drawn.tolist(), strict=True)),
            "n_draws": len(self.traces["kernel_trace_1"][0]) if self.traces else 0,
            "gradients": self.gradients,
        }
        for group, names in _GROUPS.items():
            columns = [self.traces[name] for name in names if name in self.traces]
            found[group] = self._judged(np.concatenate(columns, 2), group == "codes") if columns else None
        return found

    def _judged(self, values: Array, are_codes: bool) -> dict[str, object]:
        """Functionals (C, D, k); rare codes are left out, and a share that never changes has no ESS."""
        kept = values[..., values.mean((0, 1)) > _RAREST_CODE] if are_codes else values
        known = [Convergence.of(column) for column in np.moveaxis(kept, 2, 0)]
        sizes = [c.ess for c in known if c.ess is not None]
        if len(sizes) < len(known) or not known:
            stuck = any(c.stuck_chains for c in known)
            return {"ess": None, "rhat": None, "is_stuck": stuck, "has_converged": False}
        rhat = max(c.rhat for c in known if c.rhat is not None)
        ess, seconds, whole = min(sizes), float(self.drawn[0]), float(self.warm[0] + self.drawn[0])
        rates = {"ess_per_second": ess / seconds, "with_warmup": ess / whole}
        return {"ess": ess, "rhat": rhat, "is_stuck": False, "has_converged": rhat <= _LARGEST_RHAT, **rates}


def clock() -> Array:
    """Seconds of the processor, which other processes hardly touch, and of the wall."""
    return np.array([time.process_time(), time.perf_counter()])


def stacked(draws: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """From traces (C, ...) of each draw to (C, D, k)."""
    joined = {name: np.stack([draw[name] for draw in draws], 1) for name in draws[0]} if draws else {}
    return {name: values.reshape(*values.shape[:2], -1) for name, values in joined.items()}


def ours(sampler: Sampler | None) -> Callable[[Problem, str, int, Any], Run]:
    """``DeepNetworkPosterior.sample`` as a user calls it, with this sampler; the theory is solved first."""

    def run(problem: Problem, start: str, seed: int, options: Any) -> Run:
        begin: Any = start if start == "prior" else problem.networks(seed)
        settings = {"seed": seed, "n_chains": N_CHAINS, "keep": "statistics", "progress": False}
        start_time = clock()
        samples = problem.posterior.sample(sampler, n_draws=1, start=begin, **settings)
        warm, start_time = clock() - start_time, clock()
        while (drawn := clock() - start_time)[0] < options.seconds:
            samples = samples.resume(_CHUNK, progress=False)
        traces = {name: trace.reshape(*trace.shape[:2], -1) for name, trace in samples.draws.traces.items()}
        gradients = float(samples.draws.statistics.n_steps.mean())
        return Run({name: t[:, 1:] for name, t in traces.items()}, warm, drawn, gradients)

    return run


OURS: Mapping[str, Callable[[Problem, str, int, Any], Run]] = {
    "fltheory": ours(None),
    "fltheory HMC": ours(HMC()),
}
