"""``python -m fltheory``: one line for a bad option; theory, networks and a figure for a good one."""

import re

import pytest

import fltheory as flt
from fltheory import __main__ as command

SMALL = ["--task", "orthogonal:0.5,0.5", "--samples", "8", "--width", "20", "--temperature", "5e-3"]


@pytest.fixture(autouse=True)
def _short_warm_up(monkeypatch):
    monkeypatch.setattr(command, "_WARMUP", 40)


def run(*options):
    return command.main([*SMALL, "--draws", "5", *options])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bogus"], "--bogus"),
        (["--nonlinearity", "Sigmoidal"], "nonlinearity: expected one of Linear, Sigmoid"),
        (["--nonlinearity", "Digits"], "nonlinearity"),
        (["--nonlinearity", "Nonlinearity"], "nonlinearity"),
        (["--nonlinearity", "no_such_module:Phi"], "no_such_module"),
        (["--nonlinearity", "math:Phi"], "a class in math"),
        (["--nonlinearity", "fractions:Fraction"], "nonlinearity"),
        (["--nonlinearity", ":Sigmoid"], "nonlinearity"),
        (["--width", "-3"], "width"),
        (["--width", "wide"], "width"),
        (["--depth", "0"], "n_hidden_layers"),
        (["--samples", "0"], "n_samples"),
        (["--draws", "0"], "draws"),
        (["--seed", "-1"], "seed"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--output", "no/such/directory/figure.png"], "output"),
        (["--output", "figure.txt"], "output"),
        (["--output", "."], "output"),
        (["--task", "mnist"], "task"),
        (["--task", "digits:one,two"], "task"),
        (["--task", "digits:1,1"], "classes"),
        (["--task", "orthogonal:0.5,0.4"], "class_ratios"),
        (["--task", "digits", "--samples", "100", "--temperature", "0"], "rank"),
        (["--temperature", "0", "--width", "4"], "width"),
    ],
)
def test_a_bad_option_gets_one_line_and_status_2(capsys, options, said):
    with pytest.raises(SystemExit) as exit_:
        run(*options)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m fltheory: error: ")
    assert said in line


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "task",
        "samples",
        "nonlinearity",
        "depth",
        "width",
        "temperature",
        "seed",
        "draws",
        "output",
    ):
        assert re.search(rf"--{option} .*\n? .*\w", text)


def test_the_command_figures_writes_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    asked = []

    def write(output, names, quick, seed, report):
        asked.append((output, names, quick, seed))
        report("figure: drift.png")

    monkeypatch.setattr("fltheory.figures.write_figures", write)
    assert (
        command.main(["figures", "--output", str(tmp_path), "--only", "drift", "--quick", "--seed", "3"]) == 0
    )
    assert command.main(["figures"]) == 0
    assert asked[0] == (str(tmp_path), ["drift"], True, 3)
    assert asked[1] == ("figures", ("coding_schemes", "overview", "drift", "readouts"), False, 0)
    assert re.search(r"^ +\d+ s  figure: drift.png$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "central"], "names[0]: expected one of 'coding_schemes'"),
        (["--seed", "-1"], "seed"),
        (["--seed", "one"], "seed"),
        (["--output", __file__], "output: expected the path of a folder"),
        (["--draws", "3"], "--draws"),
    ],
)
def test_a_bad_option_of_figures_gets_one_line_and_status_2(capsys, tmp_path, options, said):
    with pytest.raises(SystemExit) as exit_:
        command.main(["figures", "--output", str(tmp_path), *options])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m fltheory")
    assert said in line


def test_help_of_figures_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        command.main(["figures", "--help"])
    text = capsys.readouterr().out
    for option in ("output", "quick", "seed", "only"):
        assert re.search(rf"--{option} .*\n? .*\w", text)


def test_a_run_prints_both_answers_and_draws_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    assert (tmp_path / "fltheory.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert printed.err == ""
    for line in (
        "flt.Linear()",
        "flt.Sigmoid()",
        "flt.ReLU()",
        "certificate",
        "analog code",
        "code 1-0",
        "residual",
        "figure: fltheory.png",
    ):
        assert line in printed.out
    assert printed.out.count("\nK_1, diagonal") == 3


def test_the_printed_python_does_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--nonlinearity", "Sigmoid", "--seed", "3") == 0
    printed = capsys.readouterr().out
    code = re.search(r"^import fltheory.*?(?=\n\n\S+\(\)\n)", printed, re.MULTILINE | re.DOTALL).group()
    exec(code, {})
    table = capsys.readouterr().out.splitlines()
    assert "Sigmoid()" in table[0]
    assert all(row in printed.splitlines() for row in table)


@pytest.mark.parametrize(
    "options", [["--nonlinearity", "Softplus", "--depth", "2"], ["--nonlinearity", "ReLU", "--depth", "4"]]
)
def test_a_case_without_theory_is_sampled(tmp_path, capsys, options):
    assert run(*options, "--output", str(tmp_path / "figure.pdf")) == 0
    printed = capsys.readouterr().out
    assert printed.count("not covered") == 1
    assert "R-hat" in printed
    assert (tmp_path / "figure.pdf").stat().st_size > 0


def test_a_theory_that_does_not_converge_is_said_and_networks_are_sampled(tmp_path, monkeypatch, capsys):
    def solve(self, seed=0, progress=None):
        raise flt.ConvergenceError("residual 1e-2 after 60 iterations")

    monkeypatch.setattr(flt.DeepNetworkPosterior, "solve", solve)
    assert run("--nonlinearity", "Sigmoid", "--output", str(tmp_path / "figure.png")) == 0
    assert "theory: did not converge: residual 1e-2" in capsys.readouterr().out


def test_a_nonlinearity_of_ones_own(tmp_path, monkeypatch, capsys):
    source = """
import fltheory as flt


class Arctan(flt.Nonlinearity):
    def __call__(self, z):
        return flt.namespace(z).atan(z)


class Leaky(flt.Nonlinearity):
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, z):
        return self.slope * z
"""
    (tmp_path / "own_nonlinearity.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert run("--nonlinearity", "own_nonlinearity:Arctan", "--output", str(tmp_path / "figure.png")) == 0
    assert "from own_nonlinearity import Arctan" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--nonlinearity", "own_nonlinearity:Leaky")
    assert "without arguments" in capsys.readouterr().err
