"""Figures show the arrays that they are about, and leave matplotlib as it was."""

import matplotlib as mpl
import numpy as np
import pytest
from attrs import evolve
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse

import fltheory as flt
from fltheory.network.diagnostics import ranks
from fltheory.plotting import plot_ranks, plot_traces

TASK = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.25, 0.25))
POSTERIOR = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=30, temperature=1e-3)


def sample(posterior):
    return posterior.sample(n_draws=3, n_chains=2, n_warmup=20)


@pytest.fixture(scope="module")
def theory():
    return POSTERIOR.solve()


@pytest.fixture(scope="module")
def networks():
    return sample(POSTERIOR)


@pytest.fixture(scope="module")
def unlabelled():
    task = flt.ArrayTask(np.eye(4), [0.0, 0.0, 1.0, -1.0])
    return sample(evolve(POSTERIOR, task=task))


@pytest.fixture(autouse=True)
def _tidy():
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


def image(panel):
    return np.asarray(panel.images[0].get_array())


# Kernels -----------------------------------------------------------------------------------------


def test_kernels_are_drawn_side_by_side_on_one_scale(theory, networks):
    axes = flt.plot_kernels(theory, networks, layer=1)
    assert axes.shape == (2,)
    for panel, representation in zip(axes, (theory, networks), strict=True):
        np.testing.assert_array_equal(image(panel), representation.kernel(1))
    assert axes[0].images[0].norm is axes[1].images[0].norm
    assert [panel.get_title() for panel in axes] == [r"theory, $N \to \infty$", "networks, $N = 30$"]


def test_classes_are_named_and_separated(theory):
    (panel,) = flt.plot_kernels(theory)
    assert [text.get_text() for text in panel.get_xticklabels()] == ["0", "1", "2"]
    np.testing.assert_allclose(panel.get_xticks(), [2.5, 7.0, 10.0])
    ends = sorted({float(line.get_xdata()[0]) for line in panel.lines if np.ptp(line.get_xdata()) == 0})
    assert ends == [5.5, 8.5]


def test_kernels_go_where_they_are_told(theory, networks):
    _, axes = plt.subplots(1, 2)
    returned = flt.plot_kernels(theory, networks, layer=0, ax=axes)
    assert list(returned) == list(axes)


def test_values_of_both_signs_get_diverging_colours():
    linear = evolve(POSTERIOR, nonlinearity=flt.Linear())
    (panel,) = flt.plot_kernels(sample(linear), layer=1)
    low, high = panel.images[0].get_clim()
    assert low == -high
    assert panel.images[0].get_cmap().name == "RdBu_r"


# Activations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["theory", "networks"])
def test_activations_are_those_of_one_network_ordered_by_code(which, request):
    representation = request.getfixturevalue(which)
    panel = flt.plot_activations(representation, n=20, seed=3)
    order = flt.find_codes(representation, 1, 20, 3).order
    np.testing.assert_array_equal(image(panel), representation.neurons(20, 1, 3).activations[order])


def test_codes_are_separated(networks):
    panel = flt.plot_activations(networks)
    codes = flt.find_codes(networks, 1)
    ends = [float(line.get_ydata()[0]) for line in panel.lines if np.ptp(line.get_ydata()) == 0]
    np.testing.assert_allclose(ends, 30 * np.cumsum(codes.fractions)[:-1] - 0.5)


def test_a_task_without_labels_is_drawn_too(unlabelled):
    assert not flt.plot_activations(unlabelled).lines
    assert flt.plot_kernels(unlabelled)[0].get_xlabel() == "inputs"
    assert flt.plot_readouts(unlabelled).get_xlabel() == "readout weight to output 0"


# Readouts ----------------------------------------------------------------------------------------


def test_the_histogram_and_the_density_of_the_theory_have_area_one(theory, networks):
    panel = flt.plot_readouts(networks, theory, output=1)
    assert sum(bar.get_width() * bar.get_height() for bar in panel.patches) == pytest.approx(1.0)
    a, density = panel.lines[0].get_data()
    assert np.trapezoid(density, a) == pytest.approx(1.0, abs=0.02)
    mean = sum(branch.probability * branch.readout[1] for branch in theory.branches)
    assert np.trapezoid(a * density, a) == pytest.approx(mean, abs=0.05)


def test_two_outputs_are_scattered_with_an_ellipse_for_each_branch(theory, networks):
    panel = flt.plot_readouts(networks, theory, output=(2, 0))
    np.testing.assert_array_equal(
        np.transpose(panel.lines[0].get_data()), networks.readouts.reshape(-1, 3)[:, [2, 0]]
    )
    ellipses = [patch for patch in panel.patches if isinstance(patch, Ellipse)]
    centres = [branch.readout[[2, 0]] for branch in theory.branches]
    np.testing.assert_allclose([ellipse.get_center() for ellipse in ellipses], centres)


def test_the_ellipse_is_two_standard_deviations_along_each_axis(theory, networks):
    panel = flt.plot_readouts(networks, theory, output=(0, 1))
    for ellipse, branch in zip(panel.patches, theory.branches, strict=True):
        inverse = np.linalg.inv(branch.readout_covariance[:2, :2])
        edge = ellipse.get_patch_transform().transform([(1.0, 0.0), (0.0, 1.0)]) - ellipse.get_center()
        np.testing.assert_allclose(np.einsum("ki,ij,kj->k", edge, inverse, edge), 4.0)


def test_readouts_need_no_theory(networks):
    assert not flt.plot_readouts(networks).patches


# Arguments ---------------------------------------------------------------------------------------

BAD = [
    ("kernels", (), {}, ValueError, "representations"),
    ("kernels", ("theory", 1), {}, TypeError, r"representations\[1\]"),
    ("kernels", ("theory", "unlabelled"), {}, ValueError, "representations"),
    ("kernels", ("theory",), {"layer": 2}, ValueError, "layer"),
    ("kernels", ("theory",), {"layer": True}, TypeError, "layer"),
    ("kernels", ("theory",), {"ax": 1}, TypeError, "ax"),
    ("activations", (None,), {}, TypeError, "representation"),
    ("activations", ("theory",), {"layer": 0}, ValueError, "layer"),
    ("activations", ("theory",), {"n": 0}, ValueError, "n"),
    ("activations", ("theory",), {"n": True}, TypeError, "n"),
    ("activations", ("theory",), {"seed": -1}, ValueError, "seed"),
    ("activations", ("theory",), {"ax": "axes"}, TypeError, "ax"),
    ("readouts", ("theory",), {}, TypeError, "networks"),
    ("readouts", ("networks", "networks"), {}, TypeError, "theory"),
    ("readouts", ("unlabelled", "theory"), {}, ValueError, "theory"),
    ("readouts", ("networks",), {"output": 3}, ValueError, "output"),
    ("readouts", ("networks",), {"output": True}, TypeError, "output"),
    ("readouts", ("networks",), {"output": (0, 0)}, ValueError, "output"),
    ("readouts", ("networks",), {"output": (0, 1, 2)}, ValueError, "output"),
    ("readouts", ("networks",), {"output": (0, "1")}, TypeError, "output"),
    ("readouts", ("networks",), {"ax": []}, TypeError, "ax"),
]


@pytest.mark.parametrize(("plot", "arguments", "options", "error", "name"), BAD)
def test_bad_arguments_are_named(request, plot, arguments, options, error, name):
    values = [request.getfixturevalue(a) if isinstance(a, str) else a for a in arguments]
    with pytest.raises(error, match=f"^{name}"):
        getattr(flt, f"plot_{plot}")(*values, **options)


# Chains ------------------------------------------------------------------------------------------


def test_ranks_and_traces_are_those_of_the_functional(networks):
    panel = plot_ranks(networks, functional="log_density", n_bins=3)
    assert panel.get_xlabel() == "rank of log_density" and len(panel.collections) == 2
    heights = [bar.get_paths()[0].vertices[:, 1].max() - 2.0 * k for k, bar in enumerate(panel.collections)]
    counts = np.array([np.histogram(r, 3, (0, 1))[0] for r in ranks(networks.draws.statistics.log_density)])
    np.testing.assert_allclose(np.array(heights) / max(heights), counts.max(1) / counts.max())
    assert max(heights) < 2.0  # no chain reaches into the next
    lines = plot_traces(networks, networks, functional="log_density").get_lines()
    drawn = np.array([line.get_ydata() for line in lines])
    np.testing.assert_array_equal(drawn, np.tile(networks.draws.statistics.log_density, (2, 1)))


def test_the_worst_functional_is_drawn_unless_one_is_named():
    networks = POSTERIOR.sample(n_draws=12, n_chains=2, n_warmup=20)
    assert plot_traces(networks).get_ylabel() == networks.diagnostics().worst


def test_bad_arguments_of_chains_are_named(networks):
    for plot in (plot_ranks, plot_traces):
        with pytest.raises(ValueError, match="samples: expected at least one"):
            plot()
        with pytest.raises(TypeError, match=r"samples\[1\]"):
            plot(networks, 3)
        with pytest.raises(ValueError, match="functional"):
            plot(networks, functional="loss")
    with pytest.raises(ValueError, match="n_bins"):
        plot_ranks(networks, n_bins=0)
