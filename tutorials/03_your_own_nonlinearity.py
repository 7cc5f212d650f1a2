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
# # Your own nonlinearity
#
# A sigmoidal neuron rests in one of two states, silent or active, and after learning, networks of such
# neurons have codes of zeros and ones. What would neurons with *three* states do? This tutorial makes a
# nonlinearity from a single formula, has it checked, solves the theory and compares it with sampled
# networks. It then turns to neurons that are linear on one side, and to a nonlinearity for which there is
# no theory.
#
# The notebook takes less than a minute. Equation numbers are those of `docs/theory.md`.

# %%
import os
import timeit

import matplotlib.pyplot as plt
import numpy as np
from attrs import evolve, frozen

import fltheory as flt

plt.rcParams["figure.dpi"] = 80
BLUE, RED = "#1b4f72", "#c1272d"

if os.environ.get("FLTHEORY_TUTORIAL_SIZE") == "small":  # for a quick test; the text describes the full size
    P, DRAWS, SLOPES = 40, 3, ()
else:
    P, DRAWS, SLOPES = 60, 30, (0.3, 1.0)

# %% [markdown]
# ## One formula
#
# A nonlinearity is a subclass of `Nonlinearity` with its parameters and one method. The theory calls it with
# numpy arrays, the sampler with torch tensors. `flt.namespace(z)` and `flt.special(z)` hand out the functions
# that belong to whatever `z` is: `exp`, `tanh`, `where` and their like from the first, `expit`, `erf` from
# the second.


# %%
@frozen
class Steps(flt.Nonlinearity):
    """Two soft steps: 0, 1/2 or 1, with steps at -place and place."""

    place: float = 2.0
    gain: float = 4.0

    def __call__(self, z):
        step = flt.special(z).expit  # 1 / (1 + exp(-z))
        return 0.5 * (step(self.gain * (z + self.place)) + step(self.gain * (z - self.place)))


phi = Steps()

# %% [markdown]
# `frozen` comes from `attrs`. It makes values that compare by their parameters, print them, and cannot
# change.
#
# The base class works out the rest: the derivative (by differences in numpy, by automatic differentiation in
# torch), the slopes at infinity, which decide on the kind of code, places where the derivative jumps, and
# averages over Gaussian variables.

# %%
print("slopes at -infinity and infinity:", phi.asymptotic_slopes, "  bounded:", phi.is_bounded)
print("kinks:", phi.kinks, "  of ReLU:", flt.ReLU().kinks)
print("derivative at -2, 0, 2:", phi.derivative(np.array([-2.0, 0.0, 2.0])).round(6))
covariance = np.array([[1.0, 0.5], [0.5, 1.0]])  # of z on two inputs
print("their kernel before learning:", phi.gaussian_kernel(covariance).round(4).tolist())
print("relative error of such averages:", f"{phi.quadrature_error(1.0):.0e}")

# %% [markdown]
# `quadrature_error` is an estimate for $z$ of the given standard deviation. It is tiny unless $\phi$ varies
# faster than the grid resolves, and then it is of order one:


# %%
@frozen
class Cosine(flt.Nonlinearity):
    """cos(k z)."""

    k: float

    def __call__(self, z):
        return flt.namespace(z).cos(self.k * z)


for k in (1.0, 10.0, 100.0, 1000.0):
    print(f"k = {k:<6}  error {Cosine(k).quadrature_error(1.0):.0e}")

# %% [markdown]
# ## Checked by laws
#
# `check_nonlinearity` holds a nonlinearity to all that is asked of those in the package. It takes about a
# second the first time, milliseconds from then on, and says nothing if all is well. The laws are

# %%
for law in flt.testing.NONLINEARITY_LAWS:
    print(f"{law.name:20} it {law.statement}")

flt.testing.check_nonlinearity(phi)

# %% [markdown]
# Let us see it find something. A subclass may replace any default by a method of its own. Here is a
# derivative with a common mistake, a factor lost in the chain rule:


# %%
@frozen
class Hasty(Steps):
    def derivative(self, z):
        step = flt.special(z).expit
        up, down = step(self.gain * (z + self.place)), step(self.gain * (z - self.place))
        return 0.5 * (up * (1 - up) + down * (1 - down))


try:
    flt.testing.check_nonlinearity(Hasty())
except AssertionError as violation:
    print(violation)

# %% [markdown]
# The ratio of the two numbers, 4, is the missing `gain`.
#
# ## Faster, by a closed form
#
# For some functions Gaussian averages are known in closed form. A tuning curve with a preferred input,
# $\phi(z)=e^{-z^2/2w^2}$, has the kernel
#
# $$\langle\phi(x)\phi(y)\rangle=
# \frac{w^2}{\sqrt{(w^2+\langle x^2\rangle)(w^2+\langle y^2\rangle)-\langle xy\rangle^2}} ,$$
#
# which needs no grid, and a subclass may say so.


# %%
@frozen
class NumericBump(flt.Nonlinearity):
    """exp(-z^2 / 2 w^2)."""

    w: float = 1.0

    def __call__(self, z):
        return flt.namespace(z).exp(-0.5 * (z / self.w) ** 2)


@frozen
class Bump(NumericBump):
    def gaussian_kernel(self, covariance):
        variance = self.w**2 + np.diagonal(covariance)
        return self.w**2 / np.sqrt(np.outer(variance, variance) - covariance**2)


flt.testing.check_nonlinearity(Bump())

factor = np.random.default_rng(0).standard_normal((300, 100))
covariance = factor @ factor.T / 100
for bump in (NumericBump(), Bump()):
    seconds = min(timeit.repeat(lambda bump=bump: bump.gaussian_kernel(covariance), number=1, repeat=3))
    print(f"{type(bump).__name__:12} {1000 * seconds:7.1f} ms for 300 inputs")
difference = NumericBump().gaussian_kernel(covariance) - Bump().gaussian_kernel(covariance)
print("largest difference:", f"{np.abs(difference).max():.0e}")

# %% [markdown]
# A closed form makes things faster, not different, and the laws hold it to that. They compare it with the
# grid on independent, correlated, equal, opposite and silent inputs. This one is right for independent
# inputs, and for them only:


# %%
@frozen
class WrongBump(NumericBump):
    def gaussian_kernel(self, covariance):
        variance = self.w**2 + np.diagonal(covariance)
        return self.w**2 / np.sqrt(np.outer(variance, variance) - np.diag(np.diagonal(covariance) ** 2))


try:
    flt.testing.check_nonlinearity(WrongBump())
except AssertionError as violation:
    print("\n".join(str(violation).splitlines()[:3]))

# %% [markdown]
# ## Three states: the theory
#
# Back to neurons with two steps. The task has three classes of mutually orthogonal inputs, so that structure
# can only come from learning (the first tutorial has the details).

# %%
task = flt.OrthogonalClassification(n_samples=P, class_ratios=(0.5, 0.25, 0.25))
_, first = np.unique(task.labels, return_index=True)  # an input of each class
posterior = flt.DeepNetworkPosterior(task, phi, width=100, temperature=0.03 / 100)

theory = posterior.solve()
for branch in theory.branches:
    print(f"share {branch.probability:.3f}   activations {branch.activations[first].round(2)}   ", end="")
    print(f"readout {branch.readout.round(2)}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", width_ratios=(1, 1.4))
line = np.linspace(-5, 5, 300)
axes[0].plot(line, phi(line), color=BLUE)
axes[0].set(xlabel="$z$", ylabel=r"$\phi(z)$", title="two steps")
_ = flt.plot_activations(theory, layer=1, n=200, ax=axes[1])

# %% [markdown]
# The code has become ternary. In the two commonest branches neurons are *half* active on class 0, fully
# active on one of the small classes and silent on the other. Nine branches coexist, where a sigmoidal network
# has four. The argument is the same as for two states: the energy of a readout,
#
# $$A(a)=\frac{|a|^2}{2\sigma_a^2}-\sum_\mu\log\big\langle e^{t_\mu\cdot a\,\phi(z)}\big\rangle_z ,\tag{8''}$$
#
# has a valley wherever prior and gain balance, and as the gain rises in two steps, there are more such
# places. A readout that gives class 0 a weak field keeps it on the middle step. (The `code` of a branch
# only says on which classes the activation is above the middle of its range, so here look at
# `activations` instead.)
#
# ## Is the solution right?
#
# A nonlinearity that nobody has used before deserves a doubt. `check_solution` holds a solution to the
# identities that any solution has to obey, whatever $\phi$, and draws neurons to test its averages. It
# passes:

# %%
flt.testing.check_solution(theory)

# %% [markdown]
# Would it notice an error? We pass off the solution as that of a lower temperature:

# %%
colder = evolve(posterior, temperature=0.02 / 100)
try:
    flt.testing.check_solution(evolve(theory, model=colder.model))
except AssertionError as violation:
    print(violation)

# %% [markdown]
# ## Three states: networks
#
# Sampling needs nothing more. Torch differentiates the formula.

# %%
networks = posterior.sample(n_draws=DRAWS, n_chains=4, seed=0)
print(flt.compare(theory, networks))

# %% [markdown]
# Kernels agree within two percent, outputs and field better. Rows marked frozen have not settled in so few
# draws: with three states there are more valleys than codes, and moves between them are accepted less often.
# Do the networks use three states, too? We look at the mean activation of single neurons on each class.

# %%
drawn = {
    "theory": (theory.neurons(4000, layer=1).activations, RED),
    "networks": (networks.activations(layer=1).reshape(-1, P), "0.6"),
}
figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.0), layout="constrained", sharey=True)
for c, panel in enumerate(axes):
    for label, (activations, colour) in drawn.items():
        response = activations[:, task.labels == c].mean(axis=1)
        style = {"histtype": "step", "linewidth": 1.3, "density": True}
        panel.hist(response, bins=np.linspace(0, 1, 61), color=colour, label=label, **style)
    panel.set(title=f"class {c}", xlabel="mean activation of a neuron")
axes[0].set_ylabel("density")
_ = axes[0].legend(frameon=False)

# %% [markdown]
# They do. The peaks lie where the theory puts them. On the large class the middle state is the most common
# one.
#
# ## A linear side
#
# Kinds of code are told apart by the slopes at infinity. Swish, $\phi(z)=z/(1+e^{-\beta z})$, is flat on the
# left and linear on the right.


# %%
@frozen
class Swish(flt.Nonlinearity):
    """z / (1 + exp(-beta z))."""

    beta: float = 1.0

    def __call__(self, z):
        return z * flt.special(z).expit(self.beta * z)


swish = Swish(beta=3.0)
flt.testing.check_nonlinearity(swish)
print("slopes at -infinity and infinity:", swish.asymptotic_slopes)

theory = evolve(posterior, nonlinearity=swish).solve()
print("branches:", len(theory.branches), "  certificate:", round(theory.certificate, 9))
for outlier in theory.outliers:
    print(f"outlier: readout {outlier.readout.round(2)} sqrt(N)   ", end="")
    print(f"activations {outlier.activations[first].round(2)} sqrt(N)")

# %% [markdown]
# Nobody told the solver that this is a relative of ReLU, but it found a bulk and outliers, one for each
# class. A neuron of size $\sqrt N$ sees only the slopes, so on outliers Swish *is* ReLU. The certificate,
# the largest $\lambda$ of (14), is 1 where neurons condense.
#
# A slope makes condensation possible, not certain. We give a soft step a linear side of slope $s$.


# %%
@frozen
class Tailed(flt.Nonlinearity):
    """A soft step and, for z > 0, slope * z on top of it."""

    slope: float

    def __call__(self, z):
        xp = flt.namespace(z)
        return flt.special(z).expit(4 * z) + self.slope * xp.where(z > 0, z, xp.zeros_like(z))


print("kink found at", Tailed(0.3).kinks, "  slopes", Tailed(0.3).asymptotic_slopes)
for slope in SLOPES:
    theory = evolve(posterior, nonlinearity=Tailed(slope)).solve()
    print(f"slope {slope}: {len(theory.outliers)} outliers, certificate {theory.certificate:.3f}")
    for branch in theory.branches:
        print(f"   share {branch.probability:.3f}   activations {branch.activations[first].round(2)}")

# %% [markdown]
# There are branches as if $\phi$ were bounded, since the targets are fitted by a field for which $\lambda$ is
# still below 1. The steeper tail changes the code, though: each neuron responds to one class instead of two,
# as the outliers of ReLU do, but with it a quarter or half of the layer, not one neuron. As $NT$ falls the
# field grows, and what matters is which comes first: codes, or $\lambda=1$.
#
# ## What cannot be had


# %%
@frozen
class Square(flt.Nonlinearity):
    """z^2."""

    def __call__(self, z):
        return z**2


try:
    evolve(posterior, nonlinearity=Square()).solve()
except ValueError as error:
    print(error)

# %% [markdown]
# For a function that grows faster than linearly there is nothing to solve. The law of one neuron contains
# $e^{h\,\phi(z)}$ with a field $h=t_\mu\cdot a$ that takes all real values, and a Gaussian weight
# $e^{-z^2/2}$. With $\phi=z^2$ the integral over $z$ diverges as soon as $h\ge\frac12$: a single neuron
# could fit the targets at a cost that grows more slowly than $N$ (with $a$ and $z$ of order $N^{1/3}$ it
# is of order $N^{2/3}$), and there is no limit in which all neurons count.
#
# ## What to take along
#
# * A formula is enough. Derivative, slopes, kinks and averages are worked out from it, and `quadrature_error`
#   says how well.
# * Whatever a subclass supplies beyond its formula has to agree with the defaults. `check_nonlinearity`
#   sees to it, and says at which input it does not.
# * `check_solution` tests a solution of the theory against identities that do not depend on how it was found.
# * The nonlinearity shapes the code: three states give a ternary code, a linear side condensation, provided
#   that the field grows to where $\lambda=1$.
