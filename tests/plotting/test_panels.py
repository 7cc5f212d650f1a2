"""Figures show the arrays that they are about, and leave matplotlib as it was."""

import matplotlib as mpl
import numpy as np
import pytest
from attrs import evolve
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse

import fltheory as flt
from fltheory import plotting
from fltheory.coding import kernel_alignment, overlap, overlap_limit
from fltheory.network.diagnostics import ranks
from fltheory.plotting import plot_ranks, plot_traces
from fltheory.plotting.style import styled
from tests.plotting.synthetic import comparison, networks as made, solution, with_readouts

TASK = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.25, 0.25))
POSTERIOR = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=30, temperature=1e-3)


def sample(posterior):
    return posterior.sample(flt.HMC(), n_draws=3, n_chains=2, n_warmup=20)


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


def test_readouts_of_a_theory_are_drawn_alone(theory):
    """The density over all its branches, or an ellipse for each."""
    panel = flt.plot_readouts(theory, output=1)
    assert not panel.patches and panel.get_title() == r"theory, $N \to \infty$"
    a, density = panel.lines[0].get_data()
    assert np.trapezoid(density, a) == pytest.approx(1.0, abs=0.02)
    panel = flt.plot_readouts(theory)
    assert len(panel.patches) == len(theory.branches)
    (left, right), (below, above) = panel.get_xlim(), panel.get_ylim()
    for branch in theory.branches:
        assert left < branch.readout[0] < right and below < branch.readout[1] < above


def test_bulk_and_condensed_neurons_of_a_theory_are_drawn_alone():
    own = solution(flt.ReLU())
    one, two = flt.plot_readouts(own, output=0), flt.plot_readouts(own)
    assert one.get_yscale() == "log" and one.get_title() == "theory, drawn at $N = 24$"
    assert one.patches[0].get_data().values.sum() > 0
    places = np.sqrt(24) * np.array([outlier.readout[:2] for outlier in own.outliers])
    np.testing.assert_allclose(one.lines[-1].get_xdata(), places[:, 0])
    np.testing.assert_allclose(np.transpose(two.lines[-1].get_data()), places)


def in_legend(panel, points):
    """Which points (k, 2) in data coordinates are where the legend is."""
    panel.figure.canvas.draw()
    box = panel.get_legend().get_window_extent()
    return [box.contains(*place) for place in panel.transData.transform(points)]


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.ReLU()])
def test_legends_are_above_what_is_drawn(phi):
    """The strongest code is at the upper right, where the legend is."""
    own = evolve(solution(phi, shares=(0.7, 0.1, 0.1, 0.1)), has_imposed_codes=True)
    drawn = with_readouts(made(phi, depth=1), own)
    for panel in (
        flt.plot_readouts(drawn, own, output=0),
        plotting.plot_overview(drawn, theories=[own])[0, 2],
    ):
        tops = [(bar.get_x(), bar.get_height()) for bar in panel.patches if hasattr(bar, "get_height")]
        assert len(tops) == 80 and not any(in_legend(panel, tops))
        curve = panel.lines[0].get_xydata() if phi.is_bounded else panel.patches[-1].get_path().vertices
        assert not any(in_legend(panel, curve[curve[:, 1] > 0]))
    panel = flt.plot_readouts(drawn, own)
    points = np.concatenate([line.get_xydata() for line in panel.lines])
    edges = [e.get_patch_transform().transform(e.get_path().vertices) for e in panel.patches]
    assert not any(in_legend(panel, np.concatenate([points, *edges])))


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
    ("readouts", (None,), {}, TypeError, "networks"),
    ("readouts", ("networks", "networks"), {}, TypeError, "theory"),
    ("readouts", ("theory", "theory"), {}, ValueError, "theory"),
    ("readouts", ("unlabelled", "theory"), {}, ValueError, "theory"),
    ("readouts", ("networks",), {"output": 3}, ValueError, "output"),
    ("readouts", ("networks",), {"output": True}, TypeError, "output"),
    ("readouts", ("networks",), {"output": (0, 0)}, ValueError, "output"),
    ("readouts", ("networks",), {"output": (0, 1, 2)}, ValueError, "output"),
    ("readouts", ("networks",), {"output": (0, "1")}, TypeError, "output"),
    ("readouts", ("networks",), {"ax": []}, TypeError, "ax"),
    ("activations", ("theory",), {"n": 5, "n_strongest": 6}, ValueError, "n_strongest"),
    ("activations", ("theory",), {"n_strongest": 2.0}, TypeError, "n_strongest"),
    ("coding_schemes", (), {}, ValueError, "representations"),
    ("coding_schemes", ("theory", None), {}, TypeError, r"representations\[1\]"),
    ("coding_schemes", ("networks",), {"theories": 1}, TypeError, "theories"),
    ("coding_schemes", ("networks",), {"theories": [None, None]}, ValueError, "theories"),
    ("coding_schemes", ("unlabelled",), {"theories": ["theory"]}, ValueError, r"theories\[0\]"),
    ("coding_schemes", ("networks",), {"n_strongest": 0}, ValueError, "n_strongest"),
    ("coding_schemes", ("networks",), {"seed": -1}, ValueError, "seed"),
    ("coding_schemes", ("networks",), {"ax": 1}, TypeError, "ax"),
    ("overview", (), {}, ValueError, "representations"),
    ("overview", (None,), {}, TypeError, r"representations\[0\]"),
    ("overview", ("theory",), {"theories": ["theory"]}, ValueError, r"theories\[0\]"),
    ("overview", ("networks",), {"theories": [1]}, TypeError, r"theories\[0\]"),
    ("overview", ("networks",), {"seed": True}, TypeError, "seed"),
    ("drift", (), {}, ValueError, "trajectories"),
    ("drift", ("theory",), {}, TypeError, r"trajectories\[0\]"),
    ("drift", ("networks",), {"theories": []}, ValueError, "theories"),
    ("drift", ("networks",), {"n_strongest": None}, TypeError, "n_strongest"),
    ("overlap", ("theory",), {}, TypeError, "trajectory"),
    ("overlap", ("networks",), {"theory": 1}, TypeError, "theory"),
    ("overlap", ("networks",), {"modulo": "order"}, ValueError, "modulo"),
    ("comparison", ("theory",), {}, TypeError, "comparison"),
    ("convergence", (), {}, ValueError, "theories"),
    ("convergence", ("networks",), {}, TypeError, r"theories\[0\]"),
]


@pytest.mark.parametrize(("plot", "arguments", "options", "error", "name"), BAD)
def test_bad_arguments_are_named(request, plot, arguments, options, error, name):
    values = [request.getfixturevalue(a) if isinstance(a, str) else a for a in arguments]
    if options.get("theories") == ["theory"]:
        options = {"theories": [request.getfixturevalue("theory")]}
    with pytest.raises(error, match=f"^{name}"):
        getattr(plotting, f"plot_{plot}")(*values, **options)


OTHERS = {
    "layers": {"n_hidden_layers": 2},
    "inputs": {"task": flt.OrthogonalClassification(n_samples=8, class_ratios=(0.5, 0.25, 0.25))},
    "outputs": {"task": flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.5))},
}


@pytest.mark.parametrize("plot", ["coding_schemes", "overview", "drift", "overlap", "readouts"])
@pytest.mark.parametrize("what", OTHERS)
def test_a_theory_of_another_shape_is_refused(networks, plot, what):
    other = evolve(POSTERIOR, nonlinearity=flt.Linear(), **OTHERS[what]).solve()
    name, options = "theory", {"theory": other}
    if plot not in ("overlap", "readouts"):
        name, options = r"theories\[0\]", {"theories": [other]}
    with pytest.raises(ValueError, match=rf"^{name}: expected a theory of 1 layers, 12 inputs and 3 outputs"):
        getattr(plotting, f"plot_{plot}")(networks, **options)


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
    networks = POSTERIOR.sample(flt.HMC(), n_draws=12, n_chains=2, n_warmup=20)
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


def test_ranks_of_few_draws_have_as_few_bins(networks):
    n_draws = networks.n_draws
    assert n_draws < 20
    one, two = plot_ranks(networks), plot_ranks(networks, n_bins=n_draws)
    ours, theirs = (panel.collections[0].get_paths()[0].vertices for panel in (one, two))
    np.testing.assert_array_equal(ours, theirs)


# Layers, time and theory -------------------------------------------------------------------------


def test_the_most_active_neurons_are_shown_by_class(networks):
    panel = flt.plot_activations(networks, n_strongest=5)
    activations = networks.neurons(30, 1).activations
    means = np.stack([activations[:, TASK.labels == c].mean(1) for c in range(3)], 1)
    strongest = set(np.argsort(-means.max(1))[:5])
    shown = [int(np.flatnonzero((activations == row).all(1))[0]) for row in image(panel)]
    assert set(shown) == strongest
    assert list(means[shown].argmax(1)) == sorted(means[shown].argmax(1))


def test_the_most_active_neurons_need_no_labels(unlabelled):
    activations = unlabelled.neurons(30, 1).activations
    sizes = (activations**2).mean(1)
    np.testing.assert_array_equal(
        image(flt.plot_activations(unlabelled, n_strongest=3)), activations[np.argsort(-sizes)[:3]]
    )


def test_coding_schemes_show_each_layer_with_the_theory_above_the_diagonal():
    rows = [made(flt.Linear()), made(flt.ReLU())]
    theory = rows[0].model
    solved = evolve(POSTERIOR, nonlinearity=flt.Linear(), n_hidden_layers=2, width=theory.width).solve()
    axes = plotting.plot_coding_schemes(*rows, theories=[solved, None], n_strongest=4)
    assert axes.shape == (2, 4)
    for layer in (1, 2):
        shown = image(axes[0, 1 + layer])
        np.testing.assert_array_equal(np.tril(shown), np.tril(rows[0].kernel(layer)))
        np.testing.assert_array_equal(np.triu(shown, 1), np.triu(solved.kernel(layer), 1))
        np.testing.assert_array_equal(image(axes[1, 1 + layer]), rows[1].kernel(layer))
        assert image(axes[0, layer - 1]).shape == (24, 12)
        assert image(axes[1, layer - 1]).shape == (4, 12)
    with pytest.raises(ValueError, match="representations: expected the same number of layers"):
        plotting.plot_coding_schemes(rows[0], made(flt.ReLU(), depth=1))


def test_both_halves_of_a_kernel_are_named():
    own = solution(flt.Sigmoid(), has_imposed_codes=True)
    axes = plotting.plot_coding_schemes(
        made(flt.Sigmoid(), depth=1), solution(flt.Sigmoid()), theories=[own] * 2
    )
    named = [[text.get_text() for text in panel.texts] for panel in axes[:, 1]]
    assert named == [["theory at these shares", "networks"], ["theory at these shares", "theory"]]


def test_drift_shows_the_same_neurons_at_both_ends_and_the_overlap():
    networks, theory = made(flt.Sigmoid(), depth=1, step=0.2), POSTERIOR.at_width(24).solve()
    (line,) = plotting.plot_drift(networks, theories=[theory])
    first, last = networks.activations(1)[0, [0, -1]]
    order = flt.find_codes(first, labels=TASK.labels).order
    np.testing.assert_array_equal(image(line[0]), first[order])
    np.testing.assert_array_equal(image(line[1]), last[order])
    assert line[0].images[0].norm is line[1].images[0].norm
    found = overlap(networks, 1, [0, 1, 2, 3, 5])
    drawn = line[2].containers[0].lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), [0, 1, 2, 3, 5])
    np.testing.assert_allclose(drawn.get_ydata(), found.overlap)
    assert [list(one.get_ydata()) for one in limits(line[2])] == [[pytest.approx(overlap_limit(theory, 1))]]


def limits(panel):
    """The marks of a theory: beside the panel, where nothing is drawn over them."""
    return [one for one in panel.lines if not one.get_clip_on()]


def test_limits_of_the_theory_are_seen_beside_the_panel():
    theory = evolve(POSTERIOR, nonlinearity=flt.Linear(), n_hidden_layers=3).solve()
    panel = plotting.plot_overlap(made(flt.Linear(), depth=3), theory)
    panel.figure.canvas.draw()
    marks = [one.get_window_extent() for one in limits(panel)]
    assert len(marks) == 3  # all at 0, side by side
    for left, right in zip([panel.get_window_extent(), *marks], marks, strict=False):
        assert left.x1 < right.x0
    assert marks[-1].x1 < panel.figure.bbox.x1


def test_modulo_permutations_strangers_are_drawn_too():
    networks = made(flt.Linear(), depth=1)
    panel = plotting.plot_overlap(networks, modulo="permutation")
    strangers = [float(one.get_ydata()[0]) for one in panel.lines if one.get_linestyle() == "--"]
    assert strangers == [pytest.approx(overlap(networks, 1, [1], "permutation").baseline)]


def test_an_overlap_needs_two_draws():
    with pytest.raises(ValueError, match="trajectory: expected at least two draws, got 1"):
        plotting.plot_overlap(made(flt.Linear(), n_draws=1))


def test_the_overview_shows_alignments(theory, networks):
    axes = plotting.plot_overview(networks, theories=[theory])
    assert axes.shape == (1, 4)
    assert axes[0, 0].get_ylabel().startswith("non-lazy")
    before, after = (bars[0].get_height() for bars in axes[0, 3].containers if len(bars) == 1)
    found = kernel_alignment(networks, 1)
    assert (before, after) == (found.prior_alignment, found.alignment)
    assert axes[0, 3].lines[-1].get_ydata()[0] == kernel_alignment(theory, 1).alignment


def test_the_overview_of_a_theory_alone(theory):
    line = plotting.plot_overview(theory)[0]
    np.testing.assert_array_equal(image(line[1]), theory.kernel(1))
    assert not line[1].texts and line[2].get_title() == "readout weights" and len(line[2].lines) == 1
    _, after = (bars for bars in line[3].containers if len(bars) == 1)
    assert after[0].get_height() == kernel_alignment(theory, 1).alignment
    assert after.get_label() == "theory"


def test_several_readouts_are_drawn_side_by_side(theory, networks):
    axes = plotting.plot_readouts([networks, networks], [theory, None], output=0)
    assert [len(panel.lines) for panel in axes] == [1, 0]
    with pytest.raises(ValueError, match="theory: expected 2, one for each"):
        plotting.plot_readouts([networks, networks], [theory])


def test_readouts_of_unbounded_networks_have_a_logarithmic_scale():
    rising = evolve(POSTERIOR, nonlinearity=flt.ReLU())
    panel = plotting.plot_readouts(made(flt.ReLU(), depth=1), output=0)
    assert panel.get_yscale() == "log"
    assert rising.nonlinearity.asymptotic_slopes == (0.0, 1.0)


def test_the_comparison_shows_what_has_two_values_and_hollow_what_is_frozen():
    panel = plotting.plot_comparison(comparison())
    points = list(panel.containers)
    assert sum(len(c.lines[0].get_xdata()) for c in points) == 5
    hollow = [c for c in points if c.lines[0].get_markerfacecolor() == "none"]
    assert [list(c.lines[0].get_ydata()) for c in hollow] == [[0.30]]
    with pytest.raises(ValueError, match="comparison: expected quantities"):
        plotting.plot_comparison(evolve(comparison(), rows=comparison().rows[-1:]))


def test_convergence_shows_the_distance_from_the_last_action(theory):
    line = plotting.plot_convergence(theory).lines[0]
    path = np.array(theory.action_path)
    np.testing.assert_allclose(line.get_ydata(), np.abs(path[:-1] - path[-1]), atol=1e-12)
    with pytest.raises(ValueError, match=r"theories\[1\]: expected a solution with an action_path"):
        plotting.plot_convergence(theory, evolve(theory, action_path=()))


def deep(phi, n_samples, scaled_temperature, **changes):
    task = flt.OrthogonalClassification(n_samples, (0.5, 0.5))
    options = {"n_hidden_layers": 2, "width": 16, "temperature": scaled_temperature / 16, "task": task}
    return evolve(POSTERIOR, nonlinearity=phi, **{**options, **changes})


def overlapping():
    inputs = np.random.default_rng(0).normal(size=(4, 6))
    return flt.ArrayTask(inputs, np.array([[1.0], [1.0], [-1.0], [-1.0]]))


@pytest.mark.parametrize(
    ("posterior", "method"),
    [
        (deep(flt.Sigmoid(), 4, 0.16), "auto"),
        (deep(flt.ReLU(), 20, 0.16), "auto"),
        pytest.param(deep(flt.Sigmoid(), 4, 0.16, task=overlapping()), "auto", marks=pytest.mark.slow),
        pytest.param(deep(flt.Sigmoid(), 4, 0.16, task=overlapping()), "particles", marks=pytest.mark.slow),
    ],
    ids=["sigmoid", "relu", "lattice", "particles"],
)
def test_convergence_of_several_layers_is_that_of_j(posterior, method, tmp_path):
    theory = posterior.solve(method=method, progress=False)
    assert theory.action_path[-1] == pytest.approx(-theory.free_energy, abs=1e-12)
    theory.save(tmp_path / "theory.flt")
    panel = plotting.plot_convergence(flt.load(tmp_path / "theory.flt"))
    path = np.array(theory.action_path)
    np.testing.assert_allclose(panel.lines[0].get_ydata(), np.abs(path[:-1] - path[-1]), atol=1e-12)
    assert panel.get_ylabel() == r"$|J - J_{\mathrm{last}}|$"


# Notebooks ---------------------------------------------------------------------------------------


def test_a_notebook_shows_figures_after_its_first():
    """The first figure of all turns interaction on, in the middle of drawing it."""
    before = mpl.is_interactive()
    try:
        with styled():
            mpl.interactive(True)
        assert mpl.is_interactive()
        with mpl.rc_context():
            mpl.interactive(False)
        assert mpl.is_interactive(), "what styled is there for: rc_context takes it back"
    finally:
        mpl.interactive(before)
