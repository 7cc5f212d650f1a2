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
# The notebook takes a few minutes. Equation numbers are those of `docs/theory.md`.

# %%
import os

import joblib
import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve, frozen

import fltheory as flt

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
# Given the activations of the last layer, the readouts are Gaussian. `sample` integrates them out and samples
# the rest, whose density (18a) stays smooth down to T = 0; the readouts are then drawn back exactly, (18c). The
# first layer enters only through what the training inputs see of it, so that is all that is sampled of it. Both
# hold for any depth.

# %%
cold = evolve(posterior, temperature=0.0)
for depth in (1, 2):
    networks = evolve(cold, n_hidden_layers=depth).sample(flt.HMC(), n_draws=4, n_chains=2, n_warmup=WARMUP)
    print(f"L = {depth}: largest training error {networks.training_error.max():.1e}")

# %% [markdown]
# The choice of coordinates can be forced. All choices sample the same posterior; the plain one, all weights, has
# a step size that shrinks with the root of T and cannot reach T = 0.

# %%
for coordinates in ("integrated", "weights"):
    networks = posterior.sample(flt.HMC(), n_draws=4, n_chains=2, n_warmup=WARMUP, coordinates=coordinates)
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
# Hamiltonian Monte Carlo moves all neurons along their gradient. To change code, a neuron would have to cross a
# barrier whose height grows with P. So chains that start from the prior and chains that start from neurons of
# the theory end apart, and neither knows it by itself. Together they do: the number that tells is R-hat over
# both.

# %%
settings = dict(n_draws=DRAWS, n_chains=4, n_warmup=WARMUP)
frozen_runs = {start: posterior.sample(flt.HMC(), start=start, **settings) for start in ("prior", "theory")}
for start, networks in frozen_runs.items():
    print(f"HMC from {start:6}", shares(networks).mean((0, 1)).round(4))

# %% [markdown]
# ## Thawed codes
#
# The default for bounded nonlinearities adds moves that know the theory: for one neuron after another, a new
# place is drawn from a mixture of Gaussians, one a code, and accepted or not by its exact conditional density
# given all other neurons, (18). `flt.Alternate(flt.HMC(), flt.BlockIndependence())` is what it is made of.

# %%
thawed_runs = {start: posterior.sample(start=start, **settings) for start in ("prior", "theory")}
for start, networks in thawed_runs.items():
    print(f"default from {start:6}", shares(networks).mean((0, 1)).round(4))
print("theory             ", np.round([branch.probability for branch in theory.branches[:4]], 4))

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
