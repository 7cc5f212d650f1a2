"""Barriers between modes of a latent's density: two Gaussians, where all is known."""

import numpy as np
import pytest

from fltheory.meanfield.barriers import LatentDensity, part_neurons


def two_codes(distance, share=0.5, n=2000):
    """Neurons on two codes, of whose latent the density is two Gaussians of unit width at this distance."""
    centres = np.zeros((n, 2))
    centres[: round(share * n), 0] = distance
    return LatentDensity(centres)


def test_modes_of_two_gaussians_and_one():
    modes = two_codes(8.0).modes()
    np.testing.assert_allclose(np.sort(modes[:, 0]), [0.0, 8.0], atol=1e-6)
    assert len(two_codes(1.5).modes()) == 1
    assert len(two_codes(8.0, share=0.005).modes()) == 1  # of hardly any neurons


@pytest.mark.parametrize("distance", [6.0, 9.0])
def test_the_barrier_between_two_gaussians(distance):
    """d^2 / 8 - log 2 over the halfway point; a little more and a little less of it an input."""
    density = two_codes(distance)
    barrier = distance**2 / 8 - np.log(2.0)
    n_inputs = barrier / 0.3
    assert part_neurons(density.modes(), density, 0.99 * n_inputs)
    assert not part_neurons(density.modes(), density, 1.01 * n_inputs)
