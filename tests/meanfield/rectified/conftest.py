"""One solution for all tests: two classes, two hidden layers of ReLU."""

import pytest
from rectified_cases import two_classes

import fltheory as flt


@pytest.fixture(scope="session")
def relu_theory() -> flt.MeanFieldSolution:
    """The first ReLU row with L = 2 of docs/theory.md section 9."""
    return two_classes().solve()
