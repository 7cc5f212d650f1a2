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
# # Drifting representations
#
# A network that has learned its task does not stand still: noise moves its weights on among all weights that
# solve the task. Its outputs and kernels stay what they are. Do its neurons? If neurons swap their roles at
# no cost, each of them forgets in time what it did, and the representation drifts. This tutorial measures
# drift along Langevin trajectories and holds it against what the theory says is left after a long time.
#
# The notebook takes about two minutes. Equation numbers are those of `docs/theory.md`.

# %%
import math
import os

import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve

import fltheory as flt

plt.rcParams["figure.dpi"] = 80

# Small: for a quick test. The text describes the full size.
SMALL = os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small"
DRAWS, WARMUP = (6, 10) if SMALL else (60, 150)


def posterior(phi, depth, width, n_samples, scaled_temperature):
    task = flt.OrthogonalClassification(n_samples=n_samples, class_ratios=(0.5, 0.5))
    temperature = scaled_temperature / width
    return flt.DeepNetworkPosterior(task, phi, n_hidden_layers=depth, width=width, temperature=temperature)


linear = posterior(flt.Linear(), 2, *((12, 8) if SMALL else (60, 30)), 0.02)
sigmoid = posterior(flt.Sigmoid(), 2, *((20, 20) if SMALL else (50, 20)), 0.02)
relu = posterior(flt.ReLU(), 1, *((48, 40) if SMALL else (100, 40)), 0.03)

# %% [markdown]
# ## Trajectories
#
# First four networks are brought to equilibrium by Hamiltonian Monte Carlo, then each follows Langevin
# dynamics. Time is that of the coordinates in which networks are sampled: hidden weights in units of their
# prior, readouts integrated out, so that readouts follow the neurons at once. `interval` is the time from one
# draw to the next. A Langevin step has no Metropolis test; at these step sizes the networks keep the
# training error that they had.


# %%
def equilibrate(case, start="prior"):
    return case.sample(flt.HMC(n_leapfrog=12), n_draws=1, n_warmup=WARMUP, start=start, seed=1)


def follow(case, start, interval, step_size):
    steps = 1 if SMALL else round(interval / step_size)
    dynamics = flt.Langevin(step_size=step_size, friction=1.0)
    return case.sample(dynamics, n_draws=DRAWS, n_warmup=0, start=start, thin=steps, seed=2)


start = equilibrate(linear)
linear_path = follow(linear, start, interval=0.8, step_size=0.04)
print("training error before and after:", start.training_error.mean().round(5), end=" ")
print(linear_path.training_error[:, DRAWS // 2 :].mean().round(5))

# %% [markdown]
# ## Linear networks drift in all layers
#
# The overlap q(s), (19), is the covariance across neurons of the activations at two times s apart, in units
# of their variance: 1 for neurons that stay, 0 for neurons that have forgotten. The theory gives the end:
# in a layer whose `symmetry` is "intact", neurons change places freely and nothing is left.

# %%
linear_theory = linear.solve()
axes = flt.plot_drift(linear_path, theories=[linear_theory])

# %%
LAGS = sorted({round(lag) for lag in np.geomspace(1, 0.8 * DRAWS, 8)})


def table(path, theory, interval):
    for layer in range(1, path.model.n_hidden_layers + 1):
        limit = flt.overlap_limit(theory, layer)
        print(f"layer {layer}: symmetry {theory.symmetry(layer)}, limit {limit:.3f}")
        for modulo in ("nothing", "permutation"):
            found = flt.overlap(path, layer, lags=LAGS[-1:], modulo=modulo)
            value = f"{found.overlap[0]:6.3f} +- {found.standard_error[0]:.3f}"
            when = f"after a time of {interval * LAGS[-1]:.0f}"
            print(f"  modulo {modulo:11} {when}: {value}, baseline {found.baseline:.3f}")


table(linear_path, linear_theory, interval=0.8)

# %% [markdown]
# Has the layer changed, or only the order of its neurons? With `modulo="permutation"` the neurons are first
# matched as they agree best. But matching finds likeness in any two sets of neurons. What it finds in
# networks of different chains, which share nothing but the posterior, is the `baseline`; an overlap at the
# baseline is no memory. Linear networks get there in both ways of counting. (The dip of layer 1 on the way
# comes from the momentum of the dynamics.)
#
# ## Sigmoidal networks keep the code of the last layer
#
# These chains start at the final temperature from draws of the prior.

# %%
prior = evolve(sigmoid, temperature=math.inf).sample(flt.HMC(), n_draws=1, n_warmup=0)
start = equilibrate(sigmoid, prior)
sigmoid_path = follow(sigmoid, start, interval=10.0, step_size=0.1)
sigmoid_theory = sigmoid.solve()
axes = flt.plot_drift(sigmoid_path, theories=[sigmoid_theory])

# %%
table(sigmoid_path, sigmoid_theory, interval=10.0)

# %% [markdown]
# Codes form in both layers, but those of the first are weak. The theory says that its neurons change theirs
# freely, and that the last layer is "broken": each neuron forgets its place around its code, not the code
# itself. What is left is the variance between codes, (20).
#
# How long does it take? On a logarithmic axis of time, with a second, finer run:

# %%
fine_path = follow(sigmoid, start, interval=0.2, step_size=0.1)
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for layer, color in ((1, "#1b4f72"), (2, "#c1272d")):
    for path, interval, marker in ((fine_path, 0.2, "o"), (sigmoid_path, 10.0, "s")):
        found = flt.overlap(path, layer, lags=LAGS)
        error = 2 * found.standard_error
        ax.errorbar(interval * found.lags, found.overlap, error, color=color, marker=marker, ms=3, lw=0.9)
    ax.axhline(flt.overlap_limit(sigmoid_theory, layer), color=color, ls=":", label=f"layer {layer}, limit")
ax.set(xscale="log", xlabel="time", ylabel="overlap", ylim=(-0.15, 1.08))
legend = ax.legend(frameon=False, loc="lower left")

# %% [markdown]
# **Look long enough.** Within a few units of time the first layer forgets what is not code, then it stands on
# a plateau near one half and looks as frozen as the last. Only over hundreds of units does it forget the
# rest. The limit is one of long times *and* many neurons: at width 50 the last layer is not strictly frozen
# either. Now and then a neuron changes its code, and the overlap sinks slowly below the limit. What
# separates the layers is the time that it takes.
#
# Up to the order of neurons the last layer is at its baseline, and this is close to 1: all networks have the
# same codes in nearly the same shares. What a neuron keeps is its own place among them.
#
# ## Condensed ReLU neurons stay
#
# With one hidden layer, two ReLU neurons carry the two classes: they have condensed. All others are weak.
# Networks made of neurons of the theory have the strong ones among them.

# %%
relu_theory = relu.solve()
neurons = [relu_theory.neurons(relu.width, layer=1, seed=chain) for chain in range(4)]
relu_path = follow(relu, equilibrate(relu, neurons), interval=0.4, step_size=0.04)
axes = flt.plot_drift(relu_path, theories=[relu_theory], n_strongest=6)

# %%
table(relu_path, relu_theory, interval=0.4)
first, last = relu_path.activations(1)[0, [0, -1]]  # of one chain, (N, P)
first, last = first - first.mean(0), last - last.mean(0)
order, later = (np.argsort((phi**2).sum(1)) for phi in (first, last))
print("the two strongest neurons:", np.sort(order[-2:]), "and in the last draw:", np.sort(later[-2:]))
for name, some in (("strong", order[-2:]), ("weak", order[:-2])):
    shared, total = (first * last)[some].sum(), (first**2 + last**2)[some].sum()
    print(f"overlap of the {name} neurons alone: {2 * shared / total:.3f}")

# %% [markdown]
# `symmetry` speaks of the many weak neurons, and these do drift; the limit (20) counts the condensed ones,
# which do not. It is a limit of many neurons, and at width 100 a little less is left. So "ReLU networks do
# not drift" is a statement about condensed neurons. Where none condense, as in deeper layers with more
# neurons than inputs, ReLU layers may drift too.
#
# ## Aligning chains
#
# Different networks have their neurons in different orders. `align` matches the neurons of each chain with
# those of one. Trained sigmoidal networks are then nearly the same. In untrained ones the matching finds
# likeness in noise: that much is no evidence.

# %%
for name, networks in (("trained", sigmoid_path), ("untrained", prior)):
    found = flt.align(networks, layer=2)
    print(f"{name:10} as they come {found.unaligned[1:].round(2)}, aligned {found.overlap[1:].round(2)}")

# %%
matched = flt.align(sigmoid_path, layer=2)
last = sigmoid_path.activations(2)[:, -1]
rows = np.argsort(last[0, :, 0] - last[0, :, -1])  # the reference: from neurons of one class to the other
panels = (
    ("reference chain", last[0]),
    ("another chain", last[1]),
    ("the same, aligned", last[1, matched.order[1]]),
)
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained", sharey=True)
for ax, (title, phi) in zip(axes, panels, strict=True):
    image = ax.imshow(phi[rows], aspect="auto", cmap="viridis", vmin=0, vmax=1)
    ax.set(title=title, xlabel="input")
axes[0].set_ylabel("neuron")
bar = figure.colorbar(image, ax=axes)

# %% [markdown]
# `plot_overlap` draws the overlap alone; here up to the order of neurons, where both layers stay near their
# baselines (dashed) all the time.

# %%
panel = flt.plot_overlap(sigmoid_path, modulo="permutation")
