"""Every figure looks as it did: images of fixed representations against stored ones.

``python -m tests.plotting.test_images`` renews the stored ones; look at them before they are kept.
The distance of two images is the root mean square difference of their pixels, from 0 to 255. Fonts and
antialiasing may differ a little between machines: that gives less than 3. Other data of the same form give
more than 8 in the least sensitive figure here, and each test asks that they do give twice the tolerance.
"""

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from attrs import evolve
from matplotlib import pyplot as plt

import fltheory as flt
from fltheory import plotting
from tests.plotting.synthetic import comparison, networks, posterior, solution, with_readouts

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE, RESOLUTION = 4.0, 45

PHIS = (flt.Linear(), flt.Sigmoid(), flt.ReLU())


def theory(phi, depth=2, noise=1.0, **changes):
    """A solution that is quick and sure, at a multiple of the temperature."""
    return posterior(phi, depth, temperature=1e-3 * noise, **changes).solve()


def twin(flag):
    """What the wrong version of a figure takes: another seed, layer or temperature."""
    return {"seed": 7 if flag else 0}


def kernels(wrong):
    return flt.plot_kernels(networks(flt.Sigmoid()), networks(flt.Sigmoid(), seed=1), layer=1 + wrong)


def activations(wrong):
    return flt.plot_activations(networks(flt.Sigmoid()), layer=2 - wrong)


def strongest(wrong):
    return flt.plot_activations(networks(flt.ReLU()), layer=2 - wrong, n_strongest=9)


def readouts_one(wrong):
    return flt.plot_readouts(networks(flt.Linear(), **twin(wrong)), theory(flt.Linear()), output=int(wrong))


def readouts_two(wrong):
    return plotting.plot_readouts(
        [networks(phi) for phi in PHIS[:2]], [theory(flt.Linear()), None], output=(0, 1 + wrong)
    )


def rearranged(wrong):
    """Other shares of codes, of which the wrong version of a theory is."""
    return (0.1, 0.2, 0.3, 0.4) if wrong else (0.4, 0.3, 0.2, 0.1)


def readouts_branches(wrong):
    own = solution(flt.Sigmoid(), shares=rearranged(wrong))
    drawn = with_readouts(networks(flt.Sigmoid(), depth=1), own)
    return plotting.plot_readouts([drawn, own], [evolve(own, has_imposed_codes=True), None], output=0)


def readouts_bulk(wrong):
    own = solution(flt.ReLU())
    drawn = with_readouts(networks(flt.ReLU(), depth=1, **twin(wrong)), own)
    return plotting.plot_readouts([drawn, own], [own, None], output=2 * wrong)


def readouts_alone(wrong):
    rows = [solution(flt.Sigmoid()), solution(flt.ReLU())]
    return plotting.plot_readouts(rows[::-1] if wrong else rows, output=(0, 1))


def theories_by_layer(wrong):
    """Codes of a theory at the shares of networks, and of a theory beside another."""
    shares = rearranged(wrong)
    own = [solution(flt.Sigmoid(), 2, shares, has_imposed_codes=True), solution(flt.Sigmoid(), 2)]
    rows = [networks(flt.Sigmoid()), solution(flt.Sigmoid(), 2, shares)]
    return plotting.plot_coding_schemes(*rows, theories=own)


def overview_alone(wrong):
    return plotting.plot_overview(solution(flt.Sigmoid(), 2, rearranged(wrong)))


def ranks(wrong):
    return flt.plot_ranks(networks(flt.Sigmoid(), **twin(wrong)), functional="log_density", n_bins=3)


def traces(wrong):
    return flt.plot_traces(networks(flt.Sigmoid(), **twin(wrong)), functional="log_density")


def gaps(wrong):
    return plotting.plot_comparison(comparison(shift=0.2 * wrong))


def convergence(wrong):
    found = theory(flt.Sigmoid(), depth=1)
    return plotting.plot_convergence(
        found if not wrong else evolve(found, action_path=found.action_path[::-1])
    )


def overlap(wrong):
    return plotting.plot_overlap(networks(flt.Linear(), step=0.6 if wrong else 0.3), theory(flt.Linear()))


def coding_schemes(wrong):
    rows = [networks(phi, **twin(wrong)) for phi in PHIS]
    return plotting.plot_coding_schemes(*rows, theories=[theory(flt.Linear()), None, None])


def overview(wrong):
    rows = [
        networks(flt.Linear(), readout_scaling="lazy", gain=0.2, **twin(wrong)),
        networks(flt.Linear(), **twin(wrong)),
    ]
    own = [theory(flt.Linear(), readout_scaling="lazy"), theory(flt.Linear())]
    return plotting.plot_overview(*rows, theories=own)


def drift(wrong):
    rows = [networks(phi, step=0.2, **twin(wrong)) for phi in PHIS]
    own = [theory(flt.Linear()), solution(flt.Sigmoid(), 2), None]
    return plotting.plot_drift(*rows, theories=own)


FIGURES = {
    figure.__name__: figure
    for figure in (
        kernels,
        activations,
        strongest,
        readouts_one,
        readouts_two,
        readouts_branches,
        readouts_bulk,
        readouts_alone,
        theories_by_layer,
        overview_alone,
        ranks,
        traces,
        gaps,
        convergence,
        overlap,
        coding_schemes,
        overview,
        drift,
    )
}


def drawn(name, wrong=False):
    """The image of a figure as a PNG file."""
    with mpl.rc_context({**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"]}):
        axes = np.ravel(FIGURES[name](wrong))
        content = io.BytesIO()
        axes[0].figure.savefig(content, dpi=RESOLUTION, metadata={"Software": None})
        plt.close(axes[0].figure)
    return content.getvalue()


def pixels(content):
    return 255.0 * plt.imread(io.BytesIO(content))[..., :3]


def distance(one, other):
    one, other = pixels(one), pixels(other)
    return np.inf if one.shape != other.shape else float(np.sqrt(((one - other) ** 2).mean()))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_looks_as_stored_and_other_data_do_not(name):
    stored = (BASELINE / f"{name}.png").read_bytes()
    assert distance(drawn(name), stored) < TOLERANCE
    assert distance(drawn(name, wrong=True), stored) > 2.0 * TOLERANCE


def test_every_stored_image_is_of_a_figure():
    assert {path.stem for path in BASELINE.glob("*.png")} == set(FIGURES)


if __name__ == "__main__":
    mpl.use("Agg")
    for each in FIGURES:
        (BASELINE / f"{each}.png").write_bytes(drawn(each))
        print(each, round(distance(drawn(each), drawn(each, wrong=True)), 1))
