# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sampling at zero temperature
#
# Drawing networks from their posterior is hard for two reasons. At low temperature the loss confines the
# weights to a thin shell, at T = 0 to a surface. And neurons that have settled on a code do not leave it: the
# shares of the codes stay where the start left them. This tutorial shows how both are overcome, how to see
# whether they were, and how to run chains on a cluster.
#
# The notebook takes a few minutes; its last part needs the extra `cluster`. Equation numbers are those of
# `docs/theory.md`.

# %%
import os

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from attrs import evolve, frozen
from dask.distributed import Client, LocalCluster

import fltheory as flt
from fltheory.sampler.base import Info, State

plt.rcParams["figure.dpi"] = 80

if os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small":  # for a quick test; the text describes the full size
    P, N, DRAWS, WARMUP = 8, 24, 6, 20
else:
    P, N, DRAWS, WARMUP = 60, 300, 60, 100

task = flt.OrthogonalClassification(n_samples=P, class_ratios=(0.5, 0.25, 0.25))
posterior = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=N, temperature=0.03 / N)

# %% [markdown]
# ## Exactly zero training error
#
# Given the activations of the last layer, the readouts are Gaussian. `sample` integrates them out and
# samples the rest, whose density (18a) stays smooth down to T = 0; the readouts are then drawn back exactly,
# (18c). The first layer enters only through what the training inputs see of it, so that is all that is
# sampled of it. Both hold for any depth.

# %%
cold = evolve(posterior, temperature=0.0)
for depth in (1, 2):
    networks = evolve(cold, n_hidden_layers=depth).sample(flt.HMC(), n_draws=4, n_chains=2, n_warmup=WARMUP)
    print(f"L = {depth}: largest training error {networks.training_error.max():.1e}")

# %% [markdown]
# The choice of coordinates can be forced. All choices sample the same posterior; with all weights, readouts
# included, the step size shrinks with the root of T and T = 0 is out of reach.

# %%
colder = evolve(posterior, temperature=1e-8)
for coordinates in ("integrated", "weights"):
    networks = colder.sample(flt.HMC(), n_draws=4, n_chains=2, n_warmup=WARMUP, coordinates=coordinates)
    step = networks.draws.statistics.step_size[:, -1].mean()
    print(f"{coordinates:12} step size {step:.4f}, acceptance {networks.acceptance_rate.mean():.2f}")

# %% [markdown]
# ## Frozen codes
#
# Three classes of orthogonal inputs. The theory says which codes neurons take on, and their shares.

# %%
theory = posterior.solve()
CODES = [branch.code for branch in theory.branches[:4]]
for branch in theory.branches[:4]:
    print(branch.code, f"{branch.probability:.4f}")


def shares(networks):
    """Share of the neurons on each code, shape (C, D, 4)."""
    classes = [task.labels == c for c in range(task.n_outputs)]

    def count(phi):  # (C, N, P)
        active = np.stack([phi[..., c].mean(-1) > 0.5 for c in classes], -1)  # (C, N, 3)
        return np.stack([(active == np.array(code, dtype=bool)).all(-1).mean(-1) for code in CODES], -1)

    return networks.functional(count)


# %% [markdown]
# Hamiltonian Monte Carlo moves all neurons along their gradient. To change code, a neuron would have to
# cross a barrier whose height grows with P. So chains that start from the prior and chains that start from
# neurons of the theory end apart, and each run looks fine by itself as long as its chains started alike.

# %%
settings = {"n_draws": DRAWS, "n_chains": 4, "n_warmup": WARMUP}
frozen_runs = {s: posterior.sample(flt.HMC(), start=s, **settings) for s in ("prior", "theory")}
for start, networks in frozen_runs.items():
    print(f"HMC from {start:6}", shares(networks).mean((0, 1)).round(4))

# %% [markdown]
# ## Thawed codes
#
# The default for bounded nonlinearities adds moves that know the theory: for one neuron after another, a new
# place is drawn from a mixture of Gaussians, one a code, and accepted or not by the exact conditional density
# given all other neurons, (18). `sample` makes it from `flt.BlockIndependence` and `flt.HMC`, composed by
# `flt.Alternate`; where it is colder, the mixture is conditioned on the other neurons.

# %%
thawed_runs = {s: posterior.sample(start=s, **settings) for s in ("prior", "theory")}
for start, networks in thawed_runs.items():
    print(f"from {start:6}", shares(networks).mean((0, 1)).round(4))
print("theory     ", np.round([branch.probability for branch in theory.branches[:4]], 4))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, runs, title in zip(axes, (frozen_runs, thawed_runs), ("HMC alone", "with code moves"), strict=True):
    for color, (start, networks) in zip(("#1b4f72", "#c1272d"), runs.items(), strict=True):
        ax.plot(shares(networks)[..., 0].T, color=color, lw=1, alpha=0.8)
        ax.plot([], color=color, label=f"from {start}")
    ax.axhline(theory.branches[0].probability, color="k", ls=":", label="theory")
    ax.set(title=title, xlabel="draw", ylabel=f"share of code {CODES[0]}")
axes[1].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## Diagnostics that tell
#
# Weights say little: neurons may change places at no cost. `diagnostics()` judges what does not depend on the
# order of neurons: kernels, outputs, shares of codes. Given other samples, it judges all chains together, so
# that runs from different starts must agree; that is the check to make. A run that has not converged says so
# when it is printed.

# %%
print(frozen_runs["prior"])
for name, runs in (("HMC alone", frozen_runs), ("with code moves", thawed_runs)):
    together = runs["prior"].diagnostics(runs["theory"])
    worst = together.functionals[together.worst] if together.worst else None
    print(f"{name}: worst is {together.worst}, R-hat", None if worst is None else worst.rhat)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for ax, runs in zip(axes, (frozen_runs, thawed_runs), strict=True):
    flt.plot_ranks(runs["prior"], runs["theory"], functional="kernel_trace_1", n_bins=min(10, DRAWS), ax=ax)
figure.tight_layout()

# %% [markdown]
# At T = 0 the other neurons nearly determine the code of each, and no move of a single neuron changes it.
# The default is then `flt.Tempering`: each chain carries copies up to a temperature at which codes change,
# and the copies exchange places. A run that thaws the codes of this task at T = 0 takes about 40 minutes
# on one core, `benchmarks/code_shares.py --temperature 0`.
#
# ## A sampler of your own
#
# A sampler is one Markov step of a batch of chains, for any target. Random walk Metropolis:


# %%
@frozen
class RandomWalk(flt.Sampler):
    """Metropolis with Gaussian proposals of a fixed size."""

    size: float = 0.3

    def init(self, target, x, generator):
        return State.at(target, x)

    def step(self, target, state, generator):
        noise = torch.randn(state.position.shape, generator=generator, dtype=state.position.dtype)
        there = State.at(target, state.position + self.size * noise, **state.memory)
        ratio = (there.log_density - state.log_density).exp().clamp(max=1.0)
        accepted = torch.rand(ratio.shape, generator=generator, dtype=ratio.dtype) < ratio
        never, one = torch.zeros_like(accepted), torch.ones_like(accepted, dtype=torch.int64)
        info = Info(ratio, accepted, never, -state.log_density, one, torch.full_like(ratio, self.size))
        return state.moved(accepted, there), info


flt.testing.check_sampler(RandomWalk())
print(posterior.sample(RandomWalk(0.01), n_draws=4, n_chains=2, n_warmup=10).acceptance_rate)

# %% [markdown]
# `check_sampler` holds it to everything that the package takes for granted of a sampler, by exact tests. Here
# is what it says of a step that accepts everything.


# %%
@frozen
class Careless(RandomWalk):
    """Forgets to reject."""

    def step(self, target, state, generator):
        _, info = super().step(target, state, generator)
        noise = torch.randn(state.position.shape, generator=generator, dtype=state.position.dtype)
        return State.at(target, state.position + self.size * noise), info


try:
    flt.testing.check_sampler(Careless())
except flt.testing.LawViolation as violation:
    print("\n".join(str(violation).splitlines()[:3]))

# %% [markdown]
# ## Long runs, and a cluster
#
# `chains_per_batch` divides the chains into batches, each with its own random numbers; `n_jobs` runs them in
# processes, without any influence on the numbers. Within `joblib.parallel_config` the same call runs on a
# Dask or Ray cluster, here one of two workers on this machine. `keep="statistics"` averages kernels, outputs
# and the field while sampling and keeps no networks; with `checkpoint=path` the run is saved every minute and
# the same call goes on from there, to the last bit as if it had never been interrupted.

# %%
run = {"n_draws": 5, "n_chains": 4, "n_warmup": 10, "chains_per_batch": 2, "keep": "statistics"}
here = posterior.sample(flt.HMC(), **run)
with (
    LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    Client(cluster),
    joblib.parallel_config(backend="dask"),
):
    there = posterior.sample(flt.HMC(), n_jobs=2, **run)
print("same numbers on the cluster:", np.array_equal(here.kernel(1), there.kernel(1)))
