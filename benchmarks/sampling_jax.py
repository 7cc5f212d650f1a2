"""The peers of ``sampling_peers.py``: the same posterior in JAX, sampled by NumPyro and BlackJAX.

Both learn step sizes and a diagonal metric in their own warm-up. What is compiled is compiled before the
clock starts, and functionals are computed while it stands still.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from blackjax.adaptation.base import get_filter_adapt_info_fn
from jax.scipy.special import erf
from numpyro.infer import HMC, NUTS
from sampling_problem import N_CHAINS, Problem, Run, clock, stacked
from torch import Tensor

from fltheory.numerics.validation import Array

jax.config.update("jax_enable_x64", True)

_PHIS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 0.5 * (1.0 + erf(0.5 * np.sqrt(np.pi) * z)),
    "linear": lambda z: z,
}
_PATIENCE = 5.0  # times the seconds of drawing that a warm-up may take, where it can be stopped


def log_density(problem: Problem) -> Callable[[Any], Any]:
    """The log posterior (2) of one network, from its whitened weights (dimension,), as one would write it."""
    model, phi = problem.posterior.model, _PHIS[problem.phi]
    n, n_inputs, n_outputs = model.width, model.task.n_inputs, model.task.n_outputs
    sigma, sigma_a = np.sqrt(model.weight_variances[0]), np.sqrt(model.readout_variance)
    inputs, y = jnp.asarray(sigma / np.sqrt(n_inputs) * model.task.inputs.T), jnp.asarray(model.task.targets)

    def density(x: Any) -> Any:
        weights, readouts = x[: n * n_inputs].reshape(n, n_inputs), x[n * n_inputs :].reshape(n, n_outputs)
        outputs = sigma_a / n * phi(weights @ inputs).T @ readouts
        return -0.5 * jnp.sum((y - outputs) ** 2) / model.temperature - 0.5 * x @ x

    return density


def bound_gradient(problem: Problem, x: Tensor) -> Callable[[], tuple[Any, Any]]:
    """What computes value (C,) and gradient (C, dimension) of networks at positions (C, dimension)."""
    compiled, position = jax.jit(jax.vmap(jax.value_and_grad(log_density(problem)))), jnp.asarray(x.numpy())
    return lambda: jax.block_until_ready(compiled(position))


def numpyro(kind: type, problem: Problem, start: str, seed: int, options: Any) -> Run:
    """NumPyro's ``HMC`` or ``NUTS``, a step at a time."""
    density, own = log_density(problem), {"max_tree_depth": options.depth} if kind is NUTS else {}
    kernel = kind(potential_fn=lambda x: -density(x), **own)
    starts = zip(*_starts(problem, start, seed), strict=True)
    each = [kernel.init(key, options.warmup, x, (), {}) for key, x in starts]
    chains = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    step = _compiled(lambda state: kernel.sample(state, (), {}), chains, options)
    begun = clock()
    for _ in range(options.warmup):
        chains = step(chains)
        if (clock() - begun)[0] > _PATIENCE * options.seconds:
            return Run({}, clock() - begun, np.zeros(2), float("nan"))

    def advance(chains: Any, _: int) -> tuple[Any, Any, Any]:
        chains = step(chains)
        return chains, chains.z, chains.num_steps

    return _drawn(problem, advance, chains, clock() - begun, options.seconds)


def of_blackjax(algorithm: Any, problem: Problem, start: str, seed: int, options: Any) -> Run:
    """BlackJAX's ``hmc`` or ``nuts`` after its window adaptation, which cannot be stopped."""
    is_nuts = algorithm is blackjax.nuts
    own = {"max_num_doublings": options.depth} if is_nuts else {"num_integration_steps": options.steps}
    density, silent = log_density(problem), get_filter_adapt_info_fn()
    adaptation = blackjax.window_adaptation(algorithm, density, adaptation_info_fn=silent, **own)

    def adapt(args: Any) -> Any:
        (state, learned), _ = adaptation.run(*args, options.warmup)
        return state, learned["step_size"], learned["inverse_mass_matrix"]

    def move(args: Any) -> Any:
        key, (state, size, metric) = args
        sampler = algorithm(density, step_size=size, inverse_mass_matrix=metric, **own)
        state, info = sampler.step(key, state)
        return (state, size, metric), info.num_integration_steps

    begin = _starts(problem, start, seed)
    adapted = _compiled(adapt, begin, options)
    begun = clock()
    chains = adapted(begin)
    warm = clock() - begun
    step = _compiled(move, (begin[0], chains), options)

    def advance(chains: Any, draw: int) -> tuple[Any, Any, Any]:
        chains, n_gradients = step((jax.vmap(partial(jax.random.fold_in, data=draw))(begin[0]), chains))
        return chains, chains[0].position, n_gradients

    return _drawn(problem, advance, chains, warm, options.seconds)


def _starts(problem: Problem, start: str, seed: int) -> tuple[Any, Any]:
    """A key and a position a chain."""
    keys = jax.random.split(jax.random.PRNGKey(seed), N_CHAINS)
    return keys, jnp.asarray(problem.positions(start, seed).numpy())


def _compiled(step: Callable[[Any], Any], example: Any, options: Any) -> Callable[[Any], Any]:
    """A step of all chains, side by side or one after another."""
    batched = jax.vmap(step) if options.vectorised else partial(jax.lax.map, step)
    compiled = jax.jit(batched).lower(example).compile()
    return lambda state: jax.block_until_ready(compiled(state))


def _drawn(problem: Problem, advance: Any, chains: Any, warm: Array, seconds: float) -> Run:
    """Draws for so many seconds; functionals are computed while the clock stands still."""
    draws, counts, spent = [], [], np.zeros(2)
    while spent[0] < seconds:
        begun = clock()
        chains, positions, n_gradients = advance(chains, len(draws))
        spent += clock() - begun
        draws.append(problem.traces(torch.tensor(np.asarray(positions))))
        counts.append(float(np.mean(n_gradients)))
    return Run(stacked(draws), warm, spent, float(np.mean(counts)))


PEERS: dict[str, Callable[[Problem, str, int, Any], Run]] = {
    "NumPyro NUTS": partial(numpyro, NUTS),
    "NumPyro HMC": partial(numpyro, HMC),
    "BlackJAX NUTS": partial(of_blackjax, blackjax.nuts),
    "BlackJAX HMC": partial(of_blackjax, blackjax.hmc),
}
