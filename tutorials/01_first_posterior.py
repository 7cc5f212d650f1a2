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
# # A first posterior
#
# A network that has learned a task fits its targets, but the targets do not say what its hidden neurons
# should do. Very different activations can give the same output. **Which structure do the representations
# have after learning, and why?**
#
# We ask this of Bayesian networks. Instead of following one optimiser to one set of weights, we consider
# all weights, each as probable as its fit to the data and its size allow. For wide networks this
# distribution can be computed (`solve`), and for networks of a given width it can be sampled (`sample`).
# This tutorial does both, first on a task where every bit of structure has to be learned, then on images.
#
# The notebook takes one to two minutes.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve

import fltheory as flt

plt.rcParams["figure.dpi"] = 80

if os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small":  # for a quick test; the text describes the full size
    P, N_IMAGES, N_TEST, WIDTH, DRAWS = 16, 30, 20, 50, 10
else:
    P, N_IMAGES, N_TEST, WIDTH, DRAWS = 60, 100, 100, 300, 100

# %% [markdown]
# ## The equation
#
# A network with one hidden layer of $N$ neurons maps an input $x$ to outputs
#
# $$f(x)=\frac1N\sum_{i=1}^N a_i\,\phi(z_i),\qquad z_i=\frac{w_i\cdot x}{\sqrt{N_0}} ,$$
#
# with preactivations $z_i$ and readout weights $a_i$, one for each output. Its weights are drawn from the
# posterior
#
# $$P(\Theta)\;\propto\;e^{-\mathrm{Loss}(\Theta)/T}\,P_0(\Theta),\qquad
# \mathrm{Loss}=\tfrac12\sum_\mu|y_\mu-f(x_\mu)|^2 .$$
#
# Here $P_0$ is Gaussian: variance 1 for the weights of the hidden layer, and $\sigma_a^2=1/P$ for the
# readout with $P$ training inputs. Three choices of scale matter.
#
# * **The output is divided by $N$**, not by $\sqrt N$. Under the prior the neurons disagree and $f$ is only
#   of order $1/\sqrt N$, so an output of order one needs *all* neurons to change. That is what makes the
#   network learn features. Divided by $\sqrt N$, wide networks would fit the data with imperceptible
#   changes (the lazy regime).
# * **The readout variance shrinks with $P$**, because with more inputs the data pull harder on each neuron.
#   This keeps the pull of the data and that of the prior comparable.
# * **The temperature acts through $NT$.** Networks of different width are comparable at the same $NT$.
#
# When $N$ is large, neurons become independent of each other given one collective quantity, a field $t$
# with an entry for each input and each output. A single neuron is then distributed as
#
# $$P(z,a)\;\propto\;P_0(a)\;N(z\,|\,0,K_0)\;e^{a^Tt^T\phi(z)} ,$$
#
# where $K_0$ is the kernel of the inputs: the prior, tilted towards neurons whose output follows the field.
# The field in turn is what the fit leaves over, divided by $NT$:
#
# $$Y=NT\,t+\langle\phi\,a^T\rangle\quad\Longleftrightarrow\quad
# t=(NT+\sigma_a^2K)^{-1}\,Y,\qquad K=\langle\phi\phi^T\rangle .$$
#
# The right form is kernel regression, with one difference to the textbook: $K$ is the kernel *after*
# learning, and it depends on $t$. Solving the theory means finding the field that is consistent with the
# neurons it produces.
#
# ## A task in which all structure is learned
#
# The inputs are mutually orthogonal, $K_0=1$: nothing in them tells which belong together. There are three
# classes, the first with half of the inputs, and one output for each class, with targets 0 and 1.

# %%
task = flt.OrthogonalClassification(n_samples=P, class_ratios=(0.5, 0.25, 0.25))
posterior = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=WIDTH, temperature=0.03 / WIDTH)

# %% [markdown]
# `Sigmoid` rises from 0 to 1, so a neuron can be silent or active on an input. Now the theory:

# %%
theory = posterior.solve()
for branch in theory.branches:
    print(f"share {branch.probability:.3f}   code {branch.code}   readout {branch.readout.round(2)}")

# %% [markdown]
# The neurons fall into a few groups, called **branches**. Each branch has a code, which says for each class
# whether the neurons are active, and a readout weight for each output. The three common ones are active on
# two classes each. A neuron of code 1-0-1 excites outputs 0 and 2 and inhibits output 1, which is silent on
# exactly the inputs that the neuron responds to.
#
# Why groups, and not a continuum? Integrate $z$ out of the single-neuron law. What is left is a density of
# the readout $e^{-A(a)}$, with
#
# $$A(a)=\frac{|a|^2}{2\sigma_a^2}-\log\big\langle e^{a^Tt^T\phi(z)}\big\rangle_{z\sim N(0,K_0)} .$$
#
# Both terms grow with $P$, so readouts sit close to the minima of $A$. A bounded $\phi$ makes the second
# term grow no faster than $|a|$. It takes over at intermediate $|a|$, the prior takes over at large $|a|$,
# and there is a minimum wherever they balance: one for each way to be active on some classes and silent on
# the others.
#
# ## Networks of finite width
#
# The same posterior is sampled by Hamiltonian Monte Carlo, in four independent chains. They start from the
# prior and are cooled to the temperature of the posterior. We name the sampler, Hamiltonian Monte Carlo
# alone, to see what it can do and what it cannot; without a name, `sample` chooses a better one, see below.

# %%
networks = posterior.sample(flt.HMC(), n_draws=DRAWS, n_chains=4, seed=0)

# %% [markdown]
# Theory and networks are both a `Representation` and answer the same questions: `kernel`, `predict`,
# `neurons`. So they are plotted by the same functions. At infinite temperature the theory is the prior,
# which shows the representation before learning.

# %%
prior = evolve(posterior, temperature=np.inf).solve()

figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained")
flt.plot_kernels(prior, theory, networks, layer=1, ax=axes)
figure.suptitle("Sigmoid: similarity of the inputs in the hidden layer")
_ = axes[0].set_title("before learning", fontsize=9)

# %% [markdown]
# Before learning, any two different inputs overlap by 1/4, which is the square of the mean activation 1/2.
# After learning, inputs of the same class overlap by about twice as much as inputs of different classes, in
# theory and in networks, although the inputs themselves are orthogonal.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
flt.plot_activations(networks, layer=1, ax=axes[0])
flt.plot_readouts(networks, theory, ax=axes[1])
_ = figure.suptitle("Sigmoid: neurons of the hidden layer")

# %% [markdown]
# Left: each row is a neuron of one network, and the rows fall into bands of neurons that are active on the
# same classes. This is a **redundant code**: about a quarter of the neurons in each large band do the same,
# up to noise, and removing one changes little.
#
# Right: each point is one neuron's readout to outputs 0 and 1, and the points gather in the four places
# that the theory predicts (ellipses, two standard deviations wide). Hardly any lie between them, because
# the path from one to another crosses a barrier of $A$.
#
# ## Theory against networks, in numbers
#
# `compare` puts every quantity side by side, with the gap and the standard error of the network's value.

# %%
print(flt.compare(theory, networks))

# %% [markdown]
# Read the last column before the numbers. **Frozen** means that the chains do not determine the value, so a
# gap there is no verdict on the theory. The outputs are close (and below 1 in both, because $NT$ acts as a
# ridge), but the networks have more neurons of code 1-0-0 and fewer of the others. Do neurons ever change
# their code?

# %%
activations = networks.activations(layer=1)  # chains, draws, neurons, inputs
is_active = np.stack([activations[..., task.labels == c].mean(-1) > 0.5 for c in range(3)], axis=-1)

changed = (is_active[:, 0] != is_active[:, -1]).any(-1).mean(-1)
share = (is_active == (1, 0, 0)).all(-1).mean((1, 2))
print("share of neurons whose code differs between first and last draw, by chain:", changed.round(3))
print("share of neurons with code 1-0-0, by chain:", share.round(3))

# %% [markdown]
# Hardly one in a hundred does. The reason is the barrier that makes the codes discrete: its height grows
# with $P$, and Hamiltonian Monte Carlo climbs only as high as its kinetic energy carries it. Within a
# branch the chains move freely. Across branches they keep the shares that they had when, during cooling,
# the barriers became too high. Longer chains hardly help, and that the chains agree with each other proves
# nothing, since all were cooled in the same way.
#
# Unless it is told which sampler to use, `sample` therefore adds moves that know the theory: they propose a
# neuron of another code and accept it with the exact probability. Now the shares can be tested:

# %%
thawed = posterior.sample(n_draws=DRAWS, n_chains=4, seed=0)
print(flt.compare(theory, thawed))

# %% [markdown]
# The tutorial `04_sampling_at_zero_temperature` says how. Back to the frozen networks, which are a state of
# their own: metastable, not wrong. The shares drag other things along: with
# other shares the field has to differ for the targets to be fitted, and with the field the readouts, which
# is why the points in the last figure lie beside their ellipses. But what a neuron does *given the field*
# can be tested. The field of the networks is known, `networks.dual_field`, so we put it into $A$ and look
# for the minima, where $a=\sigma_a^2\,t^T\langle\phi\rangle$:

# %%
z, weights = np.polynomial.hermite_e.hermegauss(80)  # Gaussian integrals over z
phi = posterior.nonlinearity(z)


def mean_activation(h):
    """Of a neuron that feels the field h, on each input."""
    tilted = weights * np.exp(np.outer(h, phi))
    return tilted @ phi / tilted.sum(axis=1)


t = networks.dual_field
for branch in theory.branches:
    a = branch.readout
    for _ in range(500):
        a = t.T @ mean_activation(t @ a) / P
    has_code = (is_active == branch.code).all(-1)
    measured = networks.readouts[has_code].mean(0)
    print(f"code {branch.code}   theory {branch.readout.round(2)}   ", end="")
    print(f"given the networks' field {a.round(2)}   networks {measured.round(2)}")

# %% [markdown]
# Given their field, the neurons of the networks sit where the single-neuron law puts them, to within two
# percent. What separates the two answers in the table is thus mostly the shares, and what they drag along.
#
# ## A linear network for contrast
#
# Everything stays, except for the nonlinearity.

# %%
linear = evolve(posterior, nonlinearity=flt.Linear())
linear_theory = linear.solve()
linear_networks = linear.sample(n_draws=DRAWS, n_chains=4, seed=0)

(branch,) = linear_theory.branches
print("codes:", branch.code)
print("standard deviation of the readouts:", np.sqrt(np.diag(branch.readout_covariance)).round(3))

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained")
linear_prior = evolve(linear, temperature=np.inf).solve()
flt.plot_kernels(linear_prior, linear_theory, linear_networks, layer=1, ax=axes)
figure.suptitle("Linear: similarity of the inputs in the hidden layer")
_ = axes[0].set_title("before learning", fontsize=9)

# %% [markdown]
# The linear network learns the classes too: its kernel gains one block for each class, and blocks of
# different classes stay orthogonal. From kernels alone one might conclude that the two networks do much the
# same.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
flt.plot_activations(linear_networks, layer=1, ax=axes[0])
flt.plot_readouts(linear_networks, linear_theory, ax=axes[1])
_ = figure.suptitle("Linear: neurons of the hidden layer")

# %% [markdown]
# Left: no bands, although the neurons are ordered by the direction in which they differ most. Every neuron
# mixes the classes in proportions of its own, which is called an **analog code**.
#
# Right: one cloud around zero, in theory and networks, because for linear $\phi$ the energy $A$ is
# quadratic and has a single wide valley. With no barrier nothing freezes, and the table can be taken at its
# word:

# %%
print(flt.compare(linear_theory, linear_networks))

# %% [markdown]
# All rows count now, and gaps are below one percent of whatever is not zero. Some exceed their standard
# error several times, and should: the theory is the limit of infinite width, and at width $N$ a difference
# of order $1/N$ remains however long one samples.
#
# ## Images
#
# Handwritten digits bring structure of their own. Three of the ten make a task of the same kind, for which
# the same lines serve. As the inputs are no longer orthogonal, `solve` turns to expectation propagation,
# which approximates the integrals over correlated $z$.

# %%
digits = flt.Digits(classes=(0, 1, 2), n_samples=N_IMAGES, n_test=N_TEST)
posterior = flt.DeepNetworkPosterior(digits, flt.Sigmoid(), width=WIDTH, temperature=0.03 / WIDTH)
theory = posterior.solve()
networks = posterior.sample(n_draws=DRAWS // 2, n_chains=4, seed=0)

for branch in theory.branches:
    print(f"share {branch.probability:.3f}   code {branch.code}   readout {branch.readout.round(2)}")

# %%
figure = plt.figure(figsize=(10.5, 3.2), layout="constrained")
before, after = figure.subfigures(1, 2, width_ratios=(1, 1.8))
image = before.subplots()
flt.plot_kernels(theory, layer=0, ax=image)
image.set_title("images", fontsize=9)
axes = flt.plot_kernels(theory, networks, layer=1, ax=after.subplots(1, 2))

# %% [markdown]
# Images of one digit resemble each other (left), but unevenly: there is more than one way to write a 1. In
# the hidden layer (centre and right) the blocks are nearly uniform, because the neurons carry the same
# three codes as before, and a code knows only the class.
#
# ## Predictions
#
# Both answers predict the outputs for images that were not in the training set. In the theory this is
# kernel regression with the learned kernel, $f(x)=\sigma_a^2\sum_\mu K(x,x_\mu)\,t_\mu$. By hand it gives
# the same up to the accuracy of the approximate integrals:

# %%
expected = theory.predict(digits.test_inputs)
found = networks.predict(digits.test_inputs)

kernel = theory.kernel(layer=1, inputs=np.concatenate([digits.test_inputs, digits.inputs]))
by_hand = kernel[:N_TEST, N_TEST:] @ theory.dual_field / N_IMAGES
print("largest difference:", f"{np.abs(by_hand - expected.mean).max():.0e}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.7), layout="constrained")
for r, colour in enumerate(("#1b4f72", "#c1272d", "#e39b1c")):
    left.plot(expected.mean[:, r], found.mean[:, r], ".", color=colour, label=f"output {r}")
    right.loglog(expected.variance[:, r], found.variance[:, r], ".", color=colour)
for panel, what in ((left, "mean"), (right, "variance")):
    panel.axline((1e-5, 1e-5), (1e-4, 1e-4), color="0.7", zorder=0)
    panel.set(title=what, xlabel="theory", ylabel=f"networks, $N = {WIDTH}$")
_ = left.legend(frameon=False)

# %% [markdown]
# Left: theory and networks give each test image nearly the same outputs. Right: the variance is that of one
# network drawn from the posterior, which the theory puts at order $1/N$, and both answers agree on its size
# and on which images are uncertain.

# %%
truth = digits.test_targets.argmax(axis=1)
for name, prediction in (("theory", expected), ("networks", found)):
    error = ((digits.test_targets - prediction.mean) ** 2).sum(axis=1).mean()
    wrong = np.sum(prediction.labels != truth)
    variance = prediction.variance.sum(axis=1).mean()
    print(f"{name}: {wrong} of {N_TEST} wrong, squared error {error:.4f}, variance {variance:.4f}")

doubtful = np.argsort(expected.mean[np.arange(N_TEST), truth])[:6]  # the lowest output for the true class
figure, axes = plt.subplots(1, 6, figsize=(9.0, 2.3), layout="constrained")
for panel, i in zip(axes, doubtful, strict=True):
    panel.imshow(digits.test_inputs[i].reshape(8, 8), cmap="gray_r")
    panel.set_title("\n".join(f"output {r}: {f:.2f}" for r, f in enumerate(expected.mean[i])), fontsize=8)
    panel.set(xticks=[], yticks=[], xlabel=f"is a {truth[i]}")

# %% [markdown]
# These are the images with the lowest output for their true class (dark: more ink than in the average
# image), and the first is the one that is taken for another digit. Their errors do not come from networks
# that disagree: the variance is a small part of the squared error, since all wide networks of the posterior
# give nearly the same output. Agreement does not mean that they are right.
#
# ## What to take along
#
# * All networks here learn their task, and the nonlinearity decides how: a bounded $\phi$ leads to a
#   redundant code, in which groups of neurons share one pattern; a linear one to an analog code, in which
#   every neuron has its own mixture.
# * The theory is a law for one neuron and a field that all neurons share. Kernel, readouts and predictions
#   follow from these two.
# * A sampler that does not cross barriers tests the law of one neuron, but not the shares of the codes.
#   `compare` says which is which.
#
# To go on, try another task, `evolve(posterior, nonlinearity=flt.Erf())`, `posterior.at_width(600)`, or a
# nonlinearity of your own. The derivation of all equations is in `docs/theory.md`.
