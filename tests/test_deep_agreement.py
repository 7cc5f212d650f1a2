"""Deep networks tend to the theory: three widths at fixed N T, started from neurons of the theory.

Codes of the last layer freeze under HMC at the shares they start with, which are those of the theory
within the spread of N draws: conditions here, not results. Kernels and t are results.
"""

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = (60, 120, 240)
N_CHAINS = 16
TASK = flt.OrthogonalClassification(20, (0.5, 0.5))
SAME = (TASK.labels[:, None] == TASK.labels) & ~np.eye(20, dtype=bool)
OTHER = TASK.labels[:, None] != TASK.labels
OWN = np.eye(2, dtype=bool)[TASK.labels]


def posterior(phi, depth):
    return flt.DeepNetworkPosterior(
        TASK, phi, n_hidden_layers=depth, width=WIDTHS[0], temperature=0.03 / WIDTHS[0]
    )


def order_parameters(field, kernels):
    """t on the own and the other class, and blocks of each kernel: arrays with leading axes."""
    blocks = [kernel[..., mask].mean(-1) for kernel in kernels for mask in (SAME, OTHER)]
    return np.stack([field[..., OWN].mean(-1), field[..., ~OWN].mean(-1), *blocks], -1)


def of_networks(networks):
    """Means of each chain, (C, quantities)."""
    kernels = [
        networks.functional(lambda phi: phi.mT @ phi / phi.shape[-2], layer)
        for layer in range(1, networks.model.n_hidden_layers + 1)
    ]
    return order_parameters(networks.dual_field_draws, kernels).mean(1)


def of_theory(theory):
    layers = range(1, theory.model.n_hidden_layers + 1)
    return order_parameters(theory.dual_field, [theory.kernel(layer) for layer in layers])


def trend(base, n_warmup, n_draws):
    """The limit of each quantity at 1 / N = 0, and its standard error."""
    values = np.stack(
        [
            of_networks(
                base.at_width(width).sample(
                    flt.HMC(),
                    n_draws=n_draws,
                    n_chains=N_CHAINS,
                    n_warmup=n_warmup,
                    start="theory",
                    seed=width,
                )
            )
            for width in WIDTHS
        ]
    )  # (widths, C, quantities)
    mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(N_CHAINS)
    design = np.stack([np.ones(3), 1.0 / np.array(WIDTHS)], 1)
    limits, errors = [], []
    for column, sigma in zip(mean.T, error.T, strict=True):
        weighted = design / sigma[:, None]
        covariance = np.linalg.inv(weighted.T @ weighted)
        limits.append((covariance @ weighted.T @ (column / sigma))[0])
        errors.append(np.sqrt(covariance[0, 0]))
    return np.array(limits), np.array(errors)


@pytest.mark.parametrize("depth", [2, 3])
def test_sigmoidal_networks_tend_to_the_theory(depth):
    base = posterior(flt.Sigmoid(), depth)
    limit, error = trend(base, 150, 150)
    theory = of_theory(base.solve())
    assert (np.abs(limit - theory) < 5.0 * error).all(), f"{limit} +- {error}, theory {theory}"
    assert (5.0 * error < 0.05 * np.abs(theory)).all()  # what would be seen
    wrong = of_theory(evolve(base, prior=flt.GaussianPrior(weight_variance=1.1)).solve())
    assert (np.abs(limit - wrong) > 5.0 * error).any()


def test_two_layers_on_a_hundred_images():
    """Networks started from neurons of the theory, N = 300: wider and longer in benchmarks/deep_digits.py."""
    base = flt.DeepNetworkPosterior(
        flt.Digits(n_samples=100), flt.Sigmoid(), n_hidden_layers=2, width=300, temperature=0.04 / 300
    )
    theory, new = base.solve(), base.task.test_inputs
    start = [[theory.neurons(300, k, 10 * c + k) for k in (1, 2)] for c in range(4)]
    networks = base.sample(flt.HMC(), start=start, n_draws=40, n_warmup=60, keep="statistics")
    kernel, outputs = networks.kernel(1) - theory.kernel(1), networks.predict(new).mean
    assert np.sqrt((kernel**2).mean()) < 0.004
    assert np.corrcoef(networks.dual_field.ravel(), theory.dual_field.ravel())[0, 1] > 0.995
    assert np.sqrt(((outputs - theory.predict(new).mean) ** 2).mean()) < 0.005
