"""The benchmark against peers samples one posterior with all, and runs end to end."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
needs_peers = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("jax", "numpyro", "blackjax")), reason="needs the extra bench"
)
SIZES = {"inputs": "random", "width": 30, "n_samples": 12, "n_inputs": 20}


@pytest.fixture
def sampling_problem(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import sampling_problem

    return sampling_problem


def test_peers_start_from_networks_of_the_theory(sampling_problem):
    problem = sampling_problem.Problem.of("sigmoid", 1e-2, **SIZES)
    x = problem.positions("theory", seed=1)
    (preactivations,) = problem.plain.layers(x).preactivations
    _, readouts = problem.plain.weights(x)
    for network, z, a in zip(problem.networks(1), preactivations, readouts, strict=True):
        np.testing.assert_allclose(z, network.preactivations, atol=1e-9)
        np.testing.assert_allclose(a, network.readouts, atol=1e-12)


@needs_peers
def test_peers_sample_the_same_posterior():
    code = f"""
import numpy as np, torch
from sampling_jax import bound_gradient
from sampling_problem import PHIS, Problem
def difference(problem, other):
    x = torch.randn(4, problem.plain.dimension, generator=torch.Generator().manual_seed(0)).double()
    value, gradient = problem.plain.value_and_gradient(x)
    theirs, slope = map(np.asarray, bound_gradient(other, x)())
    return np.ptp(value.numpy() - theirs), np.abs(gradient.numpy() - slope).max()
for phi in PHIS:
    one, other = (Problem.of(phi, T, **{SIZES!r}) for T in (1e-2, 1.01e-2))
    assert max(difference(one, one)) < 1e-9, difference(one, one)
    assert min(difference(one, other)) > 1e-4, difference(one, other)  # the negative twin: 1 % in T
"""
    run([sys.executable, "-c", code])


@pytest.mark.slow
@needs_peers
def test_benchmark_runs(tmp_path):
    file = tmp_path / "peers.json"
    run([sys.executable, "benchmarks/sampling_peers.py", "--quick", "--json", str(file)])
    found = json.loads(file.read_text())
    assert {cell["method"].split()[0] for cell in found["cells"]} == {"fltheory", "NumPyro", "BlackJAX"}
    assert all(cell["n_draws"] > 0 for cell in found["cells"])


def run(command):
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
