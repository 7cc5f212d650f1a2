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
# # Coding schemes in networks
#
# What do the neurons of a deep network do once it has learned a classification? It depends on what a neuron
# computes. Linear networks spread the task over all neurons (an analog code), sigmoidal neurons share a few
# binary patterns (a redundant code), and of ReLU neurons a few carry almost everything (a sparse code).
# This tutorial samples networks with three hidden layers, looks at their neurons layer by layer, measures
# the code, and puts the theory beside the networks wherever there is one.
#
# The notebook takes some minutes. `python -m fltheory figures` computes its figures for larger networks.

# %%
import math
import os

import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve

import fltheory as flt
from fltheory.coding import code_fractions, coding_scheme
from fltheory.plotting import (
    plot_coding_schemes,
    plot_comparison,
    plot_convergence,
    plot_drift,
    plot_overlap,
    plot_overview,
    plot_readouts,
)

plt.rcParams["figure.dpi"] = 64

if os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small":  # for a quick test; the text describes the full size
    P, N, DRAWS, WARMUP = 12, 16, 4, 20
else:
    P, N, DRAWS, WARMUP = 60, 60, 20, 200

# %% [markdown]
# ## Three nonlinearities on one task
#
# Three classes of orthogonal inputs, of shares 1/2, 1/4 and 1/4: the inputs bring no structure along, so
# all that is seen below was learned. The readout variance shrinks with the number of inputs such that
# readouts stay of order one; for ReLU it does not, and there are twice as many inputs as neurons: that is
# where single neurons take over (see the end).


# %%
def posterior(phi, width, n_samples, scaled_temperature, scaling="auto"):
    task = flt.OrthogonalClassification(n_samples=n_samples, class_ratios=(0.5, 0.25, 0.25))
    return flt.DeepNetworkPosterior(
        task,
        phi,
        prior=flt.GaussianPrior(scaling=scaling),
        n_hidden_layers=3,
        width=width,
        temperature=scaled_temperature / width,
    )


linear = posterior(flt.Linear(), N, P, 0.003)
sigmoid = posterior(flt.Sigmoid(), N, P, 0.02)
relu = posterior(flt.ReLU(), N // 2, P, 0.01, scaling="none")

# %% [markdown]
# Where the chains start matters, since deep nonlinear networks keep the code that they have found. Linear
# and ReLU networks are cooled down slowly from the prior, which is the default. Sigmoidal networks start at
# the final temperature, from draws of the prior (which is the posterior at infinite temperature): cooled
# slowly they often merge two classes in the first layers and never separate them again.

# %%
settings = {"n_draws": DRAWS, "n_chains": 2, "thin": 3}
prior_draws = evolve(sigmoid, temperature=math.inf).sample(flt.HMC(), n_draws=1, n_chains=2, n_warmup=0)
networks = {
    "linear": linear.sample(flt.HMC(), n_warmup=WARMUP, **settings),
    "sigmoid": sigmoid.sample(flt.HMC(), n_warmup=WARMUP, start=prior_draws, **settings),
    "ReLU": relu.sample(flt.HMC(), n_warmup=3 * WARMUP, **settings),
}

# %% [markdown]
# The linear theory is a closed form at any depth; that of sigmoidal networks takes some seconds. Neurons of
# their last layer stay on the codes that they happened on, so the theory is asked for those shares of codes.
# For these ReLU networks there is none: the theory is the limit of many neurons at a fixed ratio P/N, in
# which layers beyond the first do not condense (see the end).

# %%
found = code_fractions(networks["sigmoid"])
theories = [linear.solve(), sigmoid.solve(code_fractions=found) if P == 60 else None, None]

# %% [markdown]
# ## Layer by layer
#
# Each row of the left half is a neuron, each column an input; kernels on the right, with the theory above
# the diagonal where there is one. Linear: faint stripes, which grow with depth. Sigmoid: noisy blocks in
# layer 1, clean ones in layer 3, with codes such as 1-1-0 that many neurons share. ReLU: in layer 3 nearly
# all is silent but for a few neurons a class. The kernels have class blocks in every row: from the kernels
# alone the three codes can hardly be told apart.

# %%
axes = plot_coding_schemes(*networks.values(), theories=theories)

# %% [markdown]
# A single layer, larger:

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
flt.plot_activations(networks["sigmoid"], layer=3, ax=axes[0])
panel = flt.plot_activations(networks["ReLU"], layer=3, n_strongest=6, ax=axes[1])
# %% [markdown]
# ## Measures of the code
#
# `coding_scheme` says which kind of code a layer has. Groups of neurons are found from the data, not by a
# threshold on activations. One convention is set by hand: a layer is *sparse* if as many neurons as there are
# classes carry more than half of the total; `top_share` and `participation` give the numbers behind it. The
# participation of an output is the number of neurons that carry it.

# %%
for name, samples in networks.items():
    for layer in (1, 2, 3):
        scheme = coding_scheme(samples, layer)
        print(f"{name:8} layer {layer}: {scheme.kind:10} participation {scheme.participation.round(1)}")

# %%
for code, fraction in list(zip(found.codes, found.fractions, strict=True))[:5]:
    print("-".join(map(str, code)), f"{fraction:.2f}")

# %% [markdown]
# In equilibrium three codes would share nearly all neurons. Is the difference an error of the theory, or are
# the codes frozen? The theory at the shares that the networks have tells: what is left of the gap between
# the kernels of layer 3 is what freezing does not explain.

# %%
free = sigmoid.solve() if P == 60 else None
for name, theory in (("free", free), ("at these shares", theories[1])):
    if theory is not None:
        gap = np.sqrt(np.mean((theory.kernel(3) - networks["sigmoid"].kernel(3)) ** 2))
        codes = ", ".join(f"{branch.probability:.2f}" for branch in theory.branches[:6])
        print(f"theory {name}: shares of codes {codes}; rms gap of the kernel {gap:.4f}")

# %% [markdown]
# ## Readouts
#
# One hidden layer, where the theory covers all three: readout weights are Gaussian, fall into branches, or
# make a bulk from which single neurons stand out, the diamonds. The last is on a logarithmic scale.

# %%
shallow_size = (40, 48) if P < 60 else (40, 100)


def shallow(phi):
    case = posterior(phi, shallow_size[1], shallow_size[0], 0.03)
    return evolve(case, n_hidden_layers=1)


phis = (flt.Linear(), flt.Sigmoid(), flt.ReLU())
shallow_networks = [shallow(phi).sample(n_draws=DRAWS, n_warmup=WARMUP // 3) for phi in phis]
shallow_theories = [shallow(phi).solve() for phi in phis]
axes = plot_readouts(shallow_networks, shallow_theories, output=0)

# %% [markdown]
# The theory is solved by steps that lower an action, and theory and networks agree quantity by quantity:

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
plot_convergence(*shallow_theories[1:], ax=axes[0])
panel = plot_comparison(flt.compare(shallow_theories[1], shallow_networks[1]), ax=axes[1])
# %% [markdown]
# ## Lazy networks learn no code
#
# With outputs divided by the root of the width in place of the width, networks fit with small changes of many
# neurons, and their kernels stay where the prior put them. `kernel_alignment` compares a kernel with that of
# the targets. It takes many more neurons than inputs: at P near N networks learn features in either scaling.

# %%
wide = evolve(posterior(flt.Sigmoid(), 5 * N, min(P, 24), 0.02), n_hidden_layers=2)
lazy = evolve(wide, readout_scaling="lazy", temperature=0.02)
wide_draws = evolve(wide, temperature=math.inf).sample(flt.HMC(), n_draws=1, n_chains=2, n_warmup=0)
pair = [
    lazy.sample(flt.HMC(), n_warmup=WARMUP // 2, **settings),
    wide.sample(flt.HMC(), n_warmup=WARMUP // 2, start=wide_draws, **settings),
]
own = wide.solve(code_fractions=code_fractions(pair[1])) if P == 60 else None
axes = plot_overview(*pair, theories=[lazy.solve(), own])

# %% [markdown]
# ## Codes in time
#
# Under Langevin dynamics the neurons of a linear network forget where they were, in every layer. Sigmoidal
# neurons forget it in the first layers and keep their code in the last. The overlap is 1 for a
# representation that stays and 0 for one that is forgotten.

# %%
langevin = flt.Langevin(step_size=0.015, friction=1.0)
run = {"n_draws": DRAWS, "n_chains": 2, "n_warmup": 0, "thin": 80 if P == 60 else 1}
trajectories = [
    case.sample(langevin, start=samples, **run)
    for case, samples in zip((linear, sigmoid, relu), networks.values(), strict=True)
]
axes = plot_drift(*trajectories, theories=theories)

# %%
panel = plot_overlap(trajectories[1], modulo="permutation")

# %% [markdown]
# Compared up to the order of neurons, layers 1 and 2 overlap about as much as those of two networks that have
# nothing in common but the posterior, the dashed lines: what stays there is the law of the layer, while its
# neurons change places. Layer 3 remembers more, who has which code. Where single ReLU neurons carry a class,
# most of that stays too.
#
# ## When the picture changes
#
# * *ReLU, P/N.* Single neurons carry a class in layer 3 where P is at least twice N. With fewer inputs the
#   number of neurons that carry a class grows with the width, whatever the readout variance: layers beyond
#   the first do not condense in the limit, they become heavy-tailed.
# * *Readout variance.* With a variance of 1 in place of 1/P the sigmoidal networks fit with larger readouts
#   and learn less below: at N = P = 60 the ratio of same-class to other-class blocks of the kernel of layer
#   3 falls from about 2 to 1.4, and less than half of the class means of its neurons are clean (below .2 or
#   above .8) in place of all.
# * *Cooling.* Sigmoidal networks that are cooled from the prior often merge two classes, see above.
# * *Temperature.* Only N T matters. At N T of a few the task is lost.
