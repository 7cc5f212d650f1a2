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
# # The theory of coding schemes: three nonlinearities, one task
#
# Wide networks that learn features can fit the same targets with very different hidden neurons. Which kind
# of code appears is decided by the nonlinearity: **analog** for linear neurons, **redundant** for bounded
# ones, **sparse** for ReLU. This tutorial solves the theory of all three on one task and looks for the
# reason. What do the order parameters mean, and why are there three sorts of them?
#
# Equation numbers are those of `docs/theory.md`, where everything is derived. The notebook takes about a
# minute.

# %%
import os
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve
from scipy.special import logsumexp

import fltheory as flt

plt.rcParams["figure.dpi"] = 80
BLUE, RED, YELLOW = "#1b4f72", "#c1272d", "#e39b1c"

if os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small":  # for a quick test; the text describes the full size
    P, DRAWS, SWEEP = 40, 3, (0.03,)
    COMPARED, MORE = ("linear", "sigmoid"), (flt.Tanh(),)
else:
    P, DRAWS, SWEEP = 60, 30, (3.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.03, 0.01)
    COMPARED, MORE = ("linear", "sigmoid", "ReLU"), (flt.LeakyReLU(0.2), flt.Tanh())

# %% [markdown]
# ## The task, and three posteriors
#
# Sixty inputs, mutually orthogonal and of length one ($K_0=1$), in three classes with 30, 15 and 15 inputs.
# There is one output a class, with targets 0 and 1. Nothing in the inputs tells who belongs together.

# %%
task = flt.OrthogonalClassification(n_samples=P, class_ratios=(0.5, 0.25, 0.25), n_inputs=2 * P)
_, first, counts = np.unique(task.labels, return_index=True, return_counts=True)  # an input of each class

sigmoid = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=100, temperature=0.03 / 100)
posteriors = {
    "linear": evolve(sigmoid, nonlinearity=flt.Linear()),
    "sigmoid": sigmoid,
    "ReLU": evolve(sigmoid, nonlinearity=flt.ReLU()),
}
theories = {name: posterior.solve() for name, posterior in posteriors.items()}
for name, theory in theories.items():
    output = task.targets - 0.03 * theory.dual_field  # Y - N T t
    print(f"{name:8} mean outputs for class 0: {output[0].round(3)}")

# %% [markdown]
# All three are at the same $NT=0.03$, the only temperature of the theory, and have the readout variance
# $\sigma_a^2=1/P$. All three have learned the task: the first output is close to 1, the others close to 0.
#
# What the theory solves is the same in each case. A neuron with preactivations $z$ on the inputs and readout
# weights $a$ feels the others through one field $t$, with an entry for each input and each output,
#
# $$P(z,a)\propto P_0(a)\,N(z|0,K_0)\,e^{a^Tt^T\phi(z)},\qquad Y=NT\,t+\langle\phi\,a^T\rangle .\tag{3, 5}$$
#
# What differs is how the neurons are distributed once $t$ is found.
#
# ## Linear: one broad cloud
#
# Here the integrals are Gaussian. The readouts are normally distributed with a covariance $U$, which is the
# order parameter.

# %%
linear = theories["linear"]
print("U, diagonal:          ", np.diag(linear.readout_covariance).round(4))
print("of the prior:         ", np.round(1 / P, 4))

cold = evolve(posteriors["linear"], temperature=0.0).solve()
x = (1 + np.sqrt(1 + 4 * counts * P)) / 2  # x (x - 1) = g / sigma_a^2, (9), where g = counts
print("U at T = 0:           ", np.diag(cold.readout_covariance).round(4), " by hand:", (x / P).round(4))

# %% [markdown]
# At zero temperature $U=\sigma_a^2x$, where $x(x-1)=g/\sigma_a^2$ and $g$ is the strength of the targets in
# $Y^TK_0^{-1}Y$, here the number of inputs of a class. Learning multiplies the variance of the readouts
# by $x\approx43$ (30 for the small classes), while their mean stays at zero. A neuron has any mixture of
# readouts, and its preactivations follow: $\langle z\rangle=K_0ta$. That is the **analog code**.
#
# ## Sigmoid: branches
#
# `branches` lists groups of neurons. All members of a group have nearly the same readout and nearly the same
# activations, which are close to 0 or 1 class by class.

# %%
for branch in theories["sigmoid"].branches:
    width = np.sqrt(np.diag(branch.readout_covariance))
    print(f"share {branch.probability:.3f}   code {branch.code}   readout {branch.readout.round(2)}", end="")
    print(f" +- {width.round(2)}   activations {branch.activations[first].round(2)}")

# %% [markdown]
# Nine neurons in ten are active on exactly two of the three classes. The order parameters are the shares
# $P_\gamma$ and readouts $a_\gamma$ of four codes, and since there are hundreds of neurons and only four
# codes, each is carried by many: a **redundant code**.
#
# ## ReLU: bulk and outliers

# %%
relu = theories["ReLU"]
(bulk,) = relu.branches
print(f"bulk: share {bulk.probability}   readout {bulk.readout.round(2)}   ", end="")
print(f"activations {bulk.activations[first].round(2)}")
for outlier in relu.outliers:
    print(f"outlier: readout {outlier.readout.round(2)} sqrt(N)   ", end="")
    print(f"activations {outlier.activations[first].round(2)} sqrt(N)")
print(f"certificate {relu.certificate:.9f}")

# %% [markdown]
# Nearly all neurons form a *bulk*, which does similar things on all classes. A few others, the **outliers**,
# are selective: each is active on one class and exactly silent on the others. Their readouts and
# activations are of order $\sqrt N$, so that each contributes $\bar\phi\,\bar a^T$ to the output, as much as
# a whole layer of ordinary neurons. That is the **sparse code**. How much of the output is theirs?

# %%
by_outliers = sum(np.outer(outlier.activations, outlier.readout) for outlier in relu.outliers)
output = task.targets - 0.03 * relu.dual_field  # Y - N T t
for c in range(3):
    print(f"class {c}: output {output[first[c], c]:.3f}, of which outliers {by_outliers[first[c], c]:.3f}")

# %% [markdown]
# About four fifths. Like the linear cloud the bulk is one group, but it is centred away from zero.
#
# The **certificate** says that no outlier is missing. Let a neuron be condensed with readout along the unit
# vector $u$ and the best preactivations for it. What it adds to the exponent is homogeneous in its size $r$,
# namely $-r^2(1-\lambda(u))/2\sigma_a^2$, so wherever $\lambda\gt1$ it would grow without limit. For
# orthogonal inputs (14a) is short, and a brute-force search is possible:
#
# $$\lambda(u)=\frac1P\sum_\mu\max(t_\mu\cdot u,0)^2 .$$


# %%
def growth(u, t):
    """lambda of condensed neurons with readouts along unit vectors u, (n, 3) -> (n,)."""
    return np.maximum(u @ t.T, 0) ** 2 @ counts / P


def normalised(u):
    return u / np.linalg.norm(u, axis=1, keepdims=True)


t = relu.dual_field[first]  # a row for each class
anywhere = normalised(np.random.default_rng(0).standard_normal((200_000, 3)))
outliers = normalised(np.array([outlier.readout for outlier in relu.outliers]))
print(f"largest lambda among 200,000 directions: {growth(anywhere, t).max():.6f}")
print("lambda of the outliers:                 ", *[f"{size:.6f}" for size in growth(outliers, t)])

# %% [markdown]
# $\lambda$ is at most 1, and equal to 1 in the directions of the outliers. That is how the solver knows that
# it has found all of them.
#
# ## Side by side
#
# Kernels first. The scale is chosen for pairs of different inputs, so the diagonal can be above it.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained")
for panel, (name, theory) in zip(axes, theories.items(), strict=True):
    flt.plot_kernels(theory, layer=1, ax=panel)
    panel.set_title(name, fontsize=9)

# %% [markdown]
# The kernels are much alike: a block for each class. One would not guess from them that the neurons differ.
# The theory draws neurons as well, here 100 of each network:

# %%
figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.6), layout="constrained")
for panel, (name, theory) in zip(axes, theories.items(), strict=True):
    flt.plot_activations(theory, layer=1, ax=panel)
    panel.set_title(name, fontsize=9)

# %% [markdown]
# Linear: no two neurons alike, and every mixture of classes occurs. Sigmoid: bands of neurons that do the
# same. ReLU: nearly all rows are faint noise, and a single neuron stands out on each class. Each kernel is a
# sum of two parts, (`decomposition`), and the codes differ in what the learned directions are:

# %%
for name, theory in theories.items():
    parts = theory.decomposition(layer=1)
    pair = 0, 1  # two inputs of class 0
    learned = parts.outliers[:, pair].prod(axis=1)
    print(f"{name:8} K = {parts.kernel[pair]:.3f} = {parts.bulk[pair]:.3f} + {learned.round(3)}")

# %% [markdown]
# For two inputs of class 0, the linear kernel has nothing but one learned direction, as the inputs are
# orthogonal. The sigmoidal one is a sum over codes, $P_\gamma\langle\phi\rangle_\gamma^2$. Three quarters of
# the ReLU kernel are the work of one neuron.
#
# ## Why: the energy of a readout
#
# Integrate $z$ out of (3). What is left is the density $e^{-A(a)}$ of a readout, with
#
# $$A(a)=\frac{|a|^2}{2\sigma_a^2}-\sum_\mu\log\zeta(t_\mu\cdot a),\qquad
# \zeta(h)=\big\langle e^{h\,\phi(z)}\big\rangle_{z\sim N(0,1)} .\tag{8'', 10a}$$
#
# Both terms grow with $P$, so neurons sit near the bottom of valleys. The first is the prior. The second
# is the gain from a readout that follows the field, and for large readouts its growth is that of $\phi$ at
# infinity:

# %%
for phi in (flt.Linear(), flt.Sigmoid(), flt.Tanh(), flt.ReLU(), flt.LeakyReLU(0.2), flt.GELU()):
    print(f"{phi!r:32} slopes at -infinity and infinity: {phi.asymptotic_slopes}")

# %% [markdown]
# Where $\phi$ has a slope $s$, $\log\zeta(h)\approx s^2h^2/2$, which competes with the prior at any size.
# With slope 0 it is at most linear in $h$, and the prior wins at large readouts. So two numbers decide.
# Here are the three landscapes, along a line through each.

# %%
z = np.linspace(-40, 40, 8001)
log_weight = -(z**2) / 2 - np.log(np.sqrt(2 * np.pi) / (z[1] - z[0]))


def one_input(phi, h):
    """log zeta, mean and variance of phi(z) on an input where the field is h, for an array h."""
    values = phi(z)
    exponent = log_weight + h[..., None] * values
    log_zeta = logsumexp(exponent, axis=-1)
    weight = np.exp(exponent - log_zeta[..., None])
    mean = weight @ values
    return log_zeta, mean, weight @ values**2 - mean**2


def energy(phi, t, a):
    """A of readouts (n, 3) in the field t (3, 3), a row for each class."""
    return P * (a**2).sum(axis=1) / 2 - one_input(phi, a @ t.T)[0] @ counts


readouts = {branch.code: branch.readout for branch in theories["sigmoid"].branches}
centre, step = (readouts[1, 1, 0] + readouts[1, 0, 1]) / 2, readouts[1, 1, 0] - readouts[1, 0, 1]
lines = {
    "linear": (np.zeros(3), np.array([1.0, 0.0, 0.0]), "readout to output 0"),
    "sigmoid": (centre, step / np.linalg.norm(step), "from code 1-0-1 to code 1-1-0"),
    "ReLU": (np.zeros(3), outliers[0], "along the outlier of class 0"),
}
r = np.linspace(-10, 10, 201)
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.0), layout="constrained", sharey=True)
for panel, (name, (origin, direction, label)) in zip(axes, lines.items(), strict=True):
    t = theories[name].dual_field[first]
    path = origin + r[:, None] * direction
    height = energy(posteriors[name].nonlinearity, t, path)
    prior = P * (path**2).sum(axis=1) / 2
    panel.plot(r, height - height.min(), color=BLUE, label="$A$")
    panel.plot(r, prior - prior.min(), color="0.6", linestyle="--", label="prior alone")
    panel.set(title=name, xlabel=label, ylim=(-2, 80))
axes[0].set_ylabel("energy above its minimum")
_ = axes[2].legend(frameon=False, loc="center left", handlelength=1.2)

# %% [markdown]
# * **Linear.** $\log\zeta=h^2/2$ exactly, so $A$ is a parabola, and it has only one valley. Learning has
#   made it forty times flatter than the prior: the gain nearly balances it in *every* direction along the
#   targets.
# * **Sigmoid.** The gain wins at intermediate readouts, the prior at large ones, and there are separate
#   valleys with a barrier between, here of 31. Barriers grow with $P$, and neurons hardly ever cross them.
# * **ReLU.** To the left the fields are negative on class 0, $\phi$ is silent and the prior is left alone. To
#   the right, beyond a valley next to zero (the bulk), $A$ levels off instead of rising: gain and prior
#   balance, which is $\lambda=1$. A neuron on this plateau may have any size, which costs nothing, until the
#   outputs say what they need of it.
#
# ## How the field balances the codes
#
# Energies are of order $P$, and the share of a code is about $e^{-A}$. How can several codes coexist, when
# a slight difference ought to decide for one? We look for valleys, starting at all eight codes and iterating
# $a=\sigma_a^2t^T\langle\phi\rangle$, and apply Laplace's method, $P_\gamma\propto e^{-A}/\sqrt{\det A''}$,
# (8b).


# %%
def valleys(t):
    """Minima of A for the sigmoidal network that can be reached from a code: readouts, A and shares."""
    a = np.array(list(product((0, 1), repeat=3))) * counts @ t / P
    for _ in range(300):
        a = one_input(flt.Sigmoid(), a @ t.T)[1] * counts @ t / P
    _, where = np.unique(a.round(3), axis=0, return_index=True)
    a = a[where]
    spread = one_input(flt.Sigmoid(), a @ t.T)[2] * counts
    curvature = P * np.eye(3) - np.einsum("cr,nc,cs->nrs", t, spread, t)
    log_share = -energy(flt.Sigmoid(), t, a) - np.linalg.slogdet(curvature)[1] / 2
    return a, energy(flt.Sigmoid(), t, a), np.exp(log_share - logsumexp(log_share))


t = theories["sigmoid"].dual_field[first]
for a, height, share in zip(*valleys(t), strict=True):
    print(f"readout {a.round(2)}   A = {height:.2f}   share {share:.3f}")

print("with the field of output 1 stronger by 5 percent:")
for a, height, share in zip(*valleys(t * [1, 1.05, 1]), strict=True):
    print(f"readout {a.round(2)}   A = {height:.2f}   share {share:.3f}")

# %% [markdown]
# All searches end in four valleys. Three of them are equally deep to within 0.1, out of 76, and the fourth
# lies 1.5 higher. That is no coincidence but the condition for a solution, (8c): the field is the minimum
# over $t$ of a maximum over readouts, and such a minimum sits where several maxima tie. If one code were
# favoured, its share would be too large, the outputs wrong, and the field would change against it.
#
# The second table shows how sharply: with five percent more field for output 1, the share of code 1-0-1 falls
# below a third of what it was, and code 1-0-0 is gone. Hence the shares are not so much a property of
# the valleys as what the outputs need, $Y=NT\,t+\sum_\gamma P_\gamma\langle\phi\rangle_\gamma a_\gamma^T$.
# And that no valley lies deeper than the occupied ones is the certificate of bounded networks, as
# $\lambda\le1$ is for the others.
#
# (The shares differ a little from those of `solve`, which integrates over the width of each valley
# instead of approximating it at its bottom.)
#
# ## From warm to cold
#
# When do codes form? We lower $NT$ in steps, each starting from the solution before.

# %%
found = {name: [] for name in posteriors}
for name, posterior in posteriors.items():
    theory = None
    for scaled in SWEEP:
        theory = evolve(posterior, temperature=scaled / posterior.width).solve(start=theory)
        found[name].append(theory)

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
for panel, (name, solutions) in zip(axes, found.items(), strict=True):
    learned = [1 - scaled * s.dual_field[0, 0] for scaled, s in zip(SWEEP, solutions, strict=True)]
    label = None if name == "sigmoid" else "output 0 on class 0"
    panel.semilogx(SWEEP, learned, "--", color="0.6", label=label)
    panel.set(title=name, xlabel="$NT$", ylim=(-0.03, 1.05))
    panel.invert_xaxis()
spread = [np.sqrt(s.readout_covariance[0, 0]) for s in found["linear"]]
axes[0].semilogx(SWEEP, spread, "o-", color=BLUE, markersize=3, label="s.d. of readouts to it")
for code, colour in (((1, 1, 0), BLUE), ((0, 1, 1), YELLOW), ((1, 0, 0), RED), ((1, 1, 1), "black")):
    shares = [sum(b.probability for b in s.branches if b.code == code) for s in found["sigmoid"]]
    name = "share of " + "-".join(map(str, code))
    axes[1].semilogx(SWEEP, shares, "o-", color=colour, markersize=3, label=name)
largest = [s.certificate for s in found["ReLU"]]
axes[2].semilogx(SWEEP, largest, "o-", color=YELLOW, markersize=3, label=r"largest $\lambda$")
work = [sum(o.activations[0] * o.readout[0] for o in s.outliers) for s in found["ReLU"]]
axes[2].semilogx(SWEEP, work, "o-", color=BLUE, markersize=3, label="of which outliers")
for panel in axes:
    panel.legend(frameon=False, fontsize=8)

# %% [markdown]
# (Lower temperatures are to the right. Code 1-0-1 has the share of 1-1-0.) While it is warm, $t\approx
# Y/NT$ and the three are alike: one valley, $A$ nearly that of the prior, no structure. As $NT$ falls the
# field grows, and the bottom of the valley becomes flatter, its curvature being
# $A''=1/\sigma_a^2-t^T\,\mathrm{Cov}(\phi)\,t$. In units of $1/\sigma_a^2$:

# %%
print("NT                          ", *[f"{scaled:6}" for scaled in SWEEP])
stretched = [P * s.readout_covariance[0, 0] for s in found["linear"]]
print("linear: curvature, 1 / x    ", *[f"{1 / x:6.3f}" for x in stretched])

softest = []
for s in found["sigmoid"]:
    t, a = s.dual_field[first], s.branches[0].readout
    gain = (t.T * counts * one_input(flt.Sigmoid(), t @ a)[2]) @ t / P
    softest.append(1 - np.linalg.eigvalsh(gain)[-1] if len(s.branches) == 1 else None)
print("sigmoid: softest curvature  ", *[" split" if c is None else f"{c:6.3f}" for c in softest])
print("ReLU: field, t              ", *[f"{s.dual_field[0, 0]:6.3f}" for s in found["ReLU"]])
print("ReLU: outliers              ", *[f"{len(s.outliers):6}" for s in found["ReLU"]])

# %% [markdown]
# What happens next is decided by the slopes.
#
# * **Linear.** The curvature is the same at every size of readout. It becomes small but never zero, and the
#   cloud of readouts spreads without ever breaking up. The crossover is where $t\approx Y/NT$ would bring
#   it to zero, at $NT=\sqrt{\sigma_a^2g}$: 0.7 for the large class.
# * **Sigmoid.** The gain saturates, so the valley can lose its bottom while its walls stay. From $NT=0.2$ to
#   $0.1$ it splits in two steps. First the large class parts from the others (codes 1-0-0 and
#   0-1-1), then the two small classes from each other. Before that, the single branch is called 1-1-1 because
#   its mean activation is a little above 1/2 on all inputs; that is not a code. At the lowest $NT$, code
#   1-0-0 is fading, and the three codes with two active classes are left.
# * **ReLU.** The growing field reaches $\lambda=1$, for the large class between $NT=0.7$ and $0.5$, and there
#   it stops: from $NT=0.3$ on its first four digits stay the same. What is missing in the outputs is
#   supplied by outliers, whose amplitudes grow instead.
#
# ## What laziness would leave of this
#
# Divided by $\sqrt N$ instead of $N$, the readout needs only imperceptible changes of the neurons, and
# kernels stay those of the prior. We turn an input of class 0 into a direction that no training
# input has, and compare the outputs. The ridge of the lazy network is $T$, so we set it to the same 0.03.

# %%
off = np.random.default_rng(0).standard_normal(task.n_inputs)
off -= task.inputs.T @ (task.inputs @ off) / task.n_inputs  # orthogonal to all training inputs
off *= np.sqrt(task.n_inputs) / np.linalg.norm(off)
angles = np.linspace(0, 90, 19)
turn = np.radians(angles)[:, None]
turned = np.cos(turn) * task.inputs[0] + np.sin(turn) * off

figure, axes = plt.subplots(1, len(COMPARED), figsize=(10.5, 3.2), layout="constrained", sharey=True)
for panel, name in zip(axes, COMPARED, strict=True):
    lazy = evolve(posteriors[name], readout_scaling="lazy", temperature=0.03).solve()
    for theory, colour, label in ((lazy, YELLOW, "lazy"), (theories[name], BLUE, "non-lazy")):
        prediction, kernel = theory.predict(turned), theory.kernel(layer=1)
        mean, spread = prediction.mean[:, 0], np.sqrt(prediction.variance[:, 0])
        panel.plot(angles, mean, color=colour, label=label)
        panel.fill_between(angles, mean - spread, mean + spread, color=colour, alpha=0.25, linewidth=0)
        in_class, across = kernel[0, [1, -1]]
        print(f"{name:8} {label:9} kernel in class {in_class:.3f}, across {across:.3f}   output", end="")
        for k, where in ((0, "at 0 degrees"), (-1, "at 90 degrees")):
            print(f" {where} {mean[k]:.3f} +- {spread[k]:.3f}", end="" if k == 0 else "\n")
    panel.set(title=name, xlabel="angle to an input of class 0, degrees", xticks=[0, 30, 60, 90])
axes[0].set_ylabel("output 0")
_ = axes[0].legend(frameon=False)

# %% [markdown]
# Bands are one standard deviation of a single network of width 100.
#
# * **Kernels.** The lazy ones know nothing of the classes: any two different inputs overlap alike.
# * **Mean output.** For the linear network laziness hardly matters (at $T=0$ not at all, section 4.3). The
#   others differ most for inputs unlike any they have seen. At 90 degrees a neuron's preactivation is
#   independent of what it has learned, and its output is $\langle a\rangle\langle\phi\rangle_{z\sim N(0,1)}$.
# * **Variance.** It is of order one in lazy networks, whatever their width, and of order $1/N$ in the others,
#   (16). At 90 degrees the linear network has $\sqrt{U/N}=0.083$.
#
# ## What is different at width 100
#
# All of the above is the limit of infinite width. `finite_width=True` adds the terms of order $1/N$.

# %%
for name in ("linear", "sigmoid"):
    corrected = posteriors[name].solve(finite_width=True)
    for N, theory in (("infinite", theories[name]), (100, corrected)):
        kernel, t = theory.kernel(layer=1), theory.dual_field
        print(f"{name:8} N = {N:<9} kernel in class 0 {kernel[0, 1]:.4f}   field {t[0, 0]:.4f}   ", end="")
        print(f"shares {[round(branch.probability, 4) for branch in theory.branches]}")

try:
    posteriors["ReLU"].solve(finite_width=True)
except ValueError as error:
    print(error)

# %% [markdown]
# Width 100 is wide enough here: kernels change by less than one percent and shares by 0.002, although there
# are not even two neurons for each input. When sampled sigmoidal networks show quite different shares, as
# those of the first tutorial do, the width is not to blame, but chains that do not cross barriers.
#
# For ReLU the expansion is refused. It rests on a minimum of $S$ inside its domain, but where neurons
# condense, the minimum is on the rim.
#
# ## Outliers in a network of width 100
#
# So we look at sampled networks. According to the theory the outliers are $\sqrt{100}$ times larger than
# the entries of `outliers`, if there is one for each class.

# %%
networks = posteriors["ReLU"].sample(n_draws=DRAWS, n_chains=4, seed=0)
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
flt.plot_activations(networks, layer=1, ax=axes[0])
_ = flt.plot_readouts(networks, relu, ax=axes[1])

# %% [markdown]
# There is more than one for each class. The readouts lie along the rays that the theory predicts, but at
# any distance up to that of the diamonds. That is the plateau of $A$: along a ray size costs nothing, and one
# neuron may as well be replaced by several of the same direction, as long as they add up to the same output.
# So only the sum is determined. We count as an outlier what responds to a class with more than 1.6, about
# three times the mean of the bulk:

# %%
activations = networks.activations(layer=1)  # chains, draws, neurons, inputs
response = np.stack([activations[..., task.labels == c].mean(-1) for c in range(3)], axis=-1)
for c in range(3):
    is_outlier = (response.max(-1) > 1.6) & (response.argmax(-1) == c)
    share = (is_outlier * activations[..., first[c]] * networks.readouts[..., c]).sum(-1) / 100
    print(f"class {c}, by chain: {is_outlier.sum(-1).mean(1).round(1)} outliers, ", end="")
    print(f"output {share.mean(1).round(2)} (theory {by_outliers[first[c], c]:.2f})")

# %% [markdown]
# The number of outliers differs from chain to chain by a factor of up to three, since chains hardly move
# between one large neuron and several small ones. What the outliers contribute to the output is the same in
# all chains to a few percent, and close to the theory.
#
# ## Two more nonlinearities
#
# If the slopes decide, they let us guess the codes of other networks. `LeakyReLU` has two different slopes,
# `Tanh` none.

# %%
for phi in MORE:
    theory = evolve(sigmoid, nonlinearity=phi).solve()
    shares = [round(branch.probability, 3) for branch in theory.branches]
    print(f"{phi!r:32} {len(theory.outliers)} outliers, shares of branches {shares}")

# %% [markdown]
# `LeakyReLU` condenses like ReLU. `Tanh` has branches, now for all eight codes and in equal shares. As it is
# odd, $(-z,-a)$ is as probable as $(z,a)$, so every code comes with its opposite. (With a slope
# neurons can condense, but whether $\lambda$ reaches 1 depends on all of $\phi$. The next tutorial has a
# nonlinearity that finds codes first.)
#
# ## What to take along
#
# * One field $t$ and the law of one neuron describe the network. What concentrates in this law is the order
#   parameter: a covariance, the shares of codes, or a bulk with outliers.
# * All codes come from one instability. As $NT$ falls, a growing field flattens the valley of $A$ at small
#   readouts. In a linear network it just stays flat, with a bounded nonlinearity it splits, and
#   with one that bends between different slopes it opens into a plateau.
# * Field and neurons are in balance, and the balance can be checked: occupied valleys tie, and $\lambda$
#   is 1 on outliers and nowhere larger.
# * Kernels hardly tell the codes apart. Single neurons do.
#
# To go on, make a nonlinearity of your own and ask the same questions, as in the next tutorial.
