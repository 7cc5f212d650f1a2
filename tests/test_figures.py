"""The composed figures are computed, written, and gone on with."""

import matplotlib as mpl
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.figures import compute_figure, write_figures
from fltheory.figures.cases import DEEP, SCALINGS, SHALLOW
from fltheory.figures.workshop import Workshop

SOLVE = flt.DeepNetworkPosterior.solve


@pytest.fixture(autouse=True)
def _theory_of_linear_networks_only(monkeypatch):
    """The theory of the others takes too long for a quick test."""

    def quickly(self, **options):
        if self.nonlinearity.is_linear or self.readout_scaling == "lazy":
            return SOLVE(self, **options)
        raise flt.ConvergenceError("not asked for")

    monkeypatch.setattr(flt.DeepNetworkPosterior, "solve", quickly)
    cases = tuple(evolve(case, is_guided=False, quick_size=(12, 16)) for case in SHALLOW)
    monkeypatch.setattr("fltheory.figures.composed.SHALLOW", cases)


def test_the_cases_are_those_of_the_documentation():
    linear, sigmoid, relu = (case.posterior for case in DEEP)
    assert [p.n_hidden_layers for p in (linear, sigmoid, relu)] == [3, 3, 3]
    assert linear.model.readout_variance == pytest.approx(100 ** (-1 / 3))
    assert sigmoid.model.readout_variance == pytest.approx(1 / 100)
    assert relu.model.readout_variance == 1.0
    scaled = [p.model.scaled_temperature for p in (linear, sigmoid, relu)]
    assert scaled == pytest.approx([0.003, 0.02, 0.01])
    assert relu.task.n_samples >= 2 * relu.width  # where its neurons are few
    assert [case.is_annealed for case in DEEP] == [True, False, True]
    assert [case.posterior.readout_scaling for case in SCALINGS] == ["lazy", "non-lazy"]
    names = [case.name for case in (*DEEP, *SHALLOW, *SCALINGS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "n_panels"), [("coding_schemes", 18), ("overview", 8), ("drift", 9), ("readouts", 6)]
)
def test_a_figure_is_computed(name, n_panels, tmp_path):
    before, said = dict(mpl.rcParams), []
    figure = compute_figure(name, quick=True, checkpoint=tmp_path, progress=False, report=said.append)
    panels = [panel for panel in figure.axes if panel.get_label() != "<colorbar>"]
    assert len(panels) == n_panels
    assert dict(mpl.rcParams) == before
    assert any("no theory (not asked for)" in line for line in said)


def test_a_run_goes_on_with_what_is_saved(tmp_path, monkeypatch):
    (file,) = write_figures(tmp_path / "out", ["readouts"], quick=True)
    first = file.read_bytes()
    assert first.startswith(b"\x89PNG")

    def drawn(*_):
        raise AssertionError("a finished run draws nothing anew")

    monkeypatch.setattr("fltheory.network.group.Run.advance", drawn)
    assert write_figures(tmp_path / "out", ["readouts"], quick=True)[0].read_bytes() == first
    with pytest.raises(AssertionError, match="anew"):
        write_figures(tmp_path / "other", ["readouts"], quick=True)


def test_chains_of_sigmoidal_networks_start_at_the_final_temperature():
    case = DEEP[1].quick()
    networks = Workshop(is_quick=True, progress=False).networks(DEEP[1])
    annealed = case.posterior.sample(flt.HMC(), n_draws=1, n_chains=1, n_warmup=20)
    assert [len(m.schedule) for m in networks.continuation.moments] == [1]
    assert [len(m.schedule) for m in annealed.continuation.moments] == [13]
    assert networks.model.temperature == case.posterior.temperature


@pytest.mark.slow
def test_the_quick_overview_has_its_theories(monkeypatch):
    """Both rows, at its own shares of codes: there is none at those of so few neurons."""
    monkeypatch.setattr(flt.DeepNetworkPosterior, "solve", SOLVE)
    said = list[str]()
    figure = compute_figure("overview", quick=True, progress=False, report=said.append)
    assert not [line for line in said if "no theory" in line]
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert texts == ["theory", "networks", "theory", "networks"]


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"name": "central"}, ValueError, "name"),
        ({"name": 1}, TypeError, "name"),
        ({"quick": 1}, TypeError, "quick"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1.0}, TypeError, "seed"),
        ({"checkpoint": 3}, TypeError, "checkpoint"),
        ({"progress": "yes"}, TypeError, "progress"),
    ],
)
def test_bad_arguments_are_named(options, error, name):
    with pytest.raises(error, match=f"^{name}"):
        compute_figure(**{"name": "readouts", "quick": True, **options})


def test_bad_folders_and_names_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output: expected the path of a folder, got the file"):
        write_figures(tmp_path / "file")
    with pytest.raises(TypeError, match="output"):
        write_figures(None)
    with pytest.raises(ValueError, match=r"names\[0\]"):
        write_figures(tmp_path, ["central"])
    with pytest.raises(TypeError, match="names"):
        write_figures(tmp_path, "drift")
