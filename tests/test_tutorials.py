"""Tutorials run without warnings, and each notebook belongs to its text.

``python -m tests.test_tutorials`` renews the notebooks, with their outputs; with names, those whose
file begins with one of them, as in ``python -m tests.test_tutorials 02 03``.
"""

import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
TEXTS = sorted((ROOT / "tutorials").glob("*.py"))
QUICK = [path for path in TEXTS if path.stem.startswith("06")]  # the slow tests run all, at full size
LARGEST = 700_000  # bytes of a notebook with its figures


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def run(text, directory):
    """The notebook of a tutorial, with all that it printed and drew."""
    notebook = jupytext.read(text)
    where = {"metadata": {"path": str(directory)}}
    options = {"record_timing": False, "coalesce_streams": True}  # one output, however it was buffered
    NotebookClient(notebook, timeout=600, resources=where, **options).execute()
    return notebook


def renew(text):
    """Write the notebook of a tutorial, without what differs from run to run or machine to machine."""
    notebook = run(text, text.parent)
    del notebook.metadata["language_info"]
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    nbformat.write(notebook, text.with_suffix(".ipynb"))


@pytest.fixture(autouse=True)
def _same_package(monkeypatch):
    """The kernel imports the package that these tests do."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("MPLBACKEND", "Agg")


def assert_silent(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []  # warnings go there


@pytest.mark.parametrize("text", QUICK, ids=lambda path: path.stem)
def test_a_small_version_runs(text, tmp_path, monkeypatch):
    monkeypatch.setenv("FLTHEORY_TUTORIAL_SIZE", "small")
    assert_silent(run(text, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_it_runs_at_full_size(text, tmp_path, monkeypatch):
    monkeypatch.delenv("FLTHEORY_TUTORIAL_SIZE", raising=False)
    assert_silent(run(text, tmp_path))


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_the_notebook_is_that_of_the_text(text):
    path = text.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert cells(notebook) == cells(jupytext.read(text))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # in one go
    assert_silent(notebook)
    assert path.stat().st_size < LARGEST
    content = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in content
    assert not re.search(r"\bat 0x[0-9a-f]{6}", content)  # an object that has no repr of its own


def test_every_notebook_has_a_text():
    assert TEXTS
    assert [p.with_suffix(".py") for p in sorted((ROOT / "tutorials").glob("*.ipynb"))] == TEXTS


if __name__ == "__main__":
    for tutorial in TEXTS:
        if tutorial.stem.startswith(tuple(sys.argv[1:]) or ""):
            renew(tutorial)
