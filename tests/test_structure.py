"""The frame holds: import direction, lazy names, and documents that agree with the code."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fltheory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = sorted((ROOT / "fltheory").rglob("*.py"))

# A room imports from itself and from the layers before its own.
LAYERS = (
    {"errors"},
    {"numerics"},
    {"task", "nonlinearity", "prior", "sampler"},
    {"model"},
    {"storage", "representation"},
    {"meanfield", "network"},
    {"guidance"},
    {"posterior"},
    {"coding", "io"},
    {"study"},
    {"plotting"},
    {"testing", "figures"},
    {"__main__"},
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
TORCH_ROOMS = {"sampler", "network"}


# Import direction --------------------------------------------------------------------------------


def _room(path):
    return path.relative_to(ROOT / "fltheory").parts[0].removesuffix(".py")


def _imported(nodes):
    """The full names of all modules that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "fltheory":
                names = [alias.name for alias in node.names if alias.name != "__version__"]
                yield from (f"fltheory.{fltheory._HOME.get(name, name)}" for name in names)
            else:
                yield node.module


def _at_import(node):
    """The nodes below this one that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _at_import(child)


def _violations(room, source):
    tree = ast.parse(source)
    found = []
    for module in _imported(ast.walk(tree)):
        package, _, rest = module.partition(".")
        other = rest.partition(".")[0] or "__main__"  # the whole package: for the top layer only
        if package == "fltheory" and other != room and DEPTH[other] >= DEPTH[room]:
            found.append(module)
    if room not in TORCH_ROOMS:
        at_import = _imported(_at_import(tree))
        found += [module for module in at_import if module.partition(".")[0] == "torch"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    if path == ROOT / "fltheory" / "__init__.py":
        return  # the table of contents names them all
    assert _room(path) in DEPTH, "a new room needs a place in LAYERS"
    assert _violations(_room(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("numerics", "from fltheory.task import Task"),
        ("task", "from fltheory import GaussianPrior"),
        ("sampler", "import fltheory.network.target"),
        ("meanfield", "from fltheory.network.samples import PosteriorSamples"),
        ("network", "def f():\n    from fltheory.meanfield import readout"),
        ("representation", "import fltheory"),
        ("posterior", "from fltheory import compare"),
        ("meanfield", "import torch"),
        ("posterior", "class A:\n    from torch import Tensor"),
    ],
)
def test_an_import_the_wrong_way_is_found(room, source):
    assert _violations(room, source)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("network", "import torch\nfrom fltheory.representation import Representation"),
        ("nonlinearity", "def f():\n    import torch"),
        ("posterior", "if TYPE_CHECKING:\n    from torch import Tensor"),
        ("io", "from fltheory import __version__, PosteriorSamples"),
    ],
)
def test_an_import_the_right_way_passes(room, source):
    assert _violations(room, source) == []


# Public names ------------------------------------------------------------------------------------


def _loaded_after(code):
    """Which slow or optional libraries a fresh interpreter has loaded after ``code``."""
    heavy = ["torch", "matplotlib", "hypothesis", "sklearn", "arviz_stats"]
    code += f"\nimport sys; print(*[name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return result.stdout.split()


def test_importing_the_package_loads_nothing_slow():
    assert _loaded_after("import fltheory as flt; dir(flt); flt.Task, flt.Sigmoid, flt.GaussianPrior") == []


def test_solving_the_theory_loads_no_torch():
    code = """
import fltheory as flt
task = flt.OrthogonalClassification(n_samples=6, class_ratios=(0.5, 0.5))
flt.DeepNetworkPosterior(task, flt.Linear(), width=20, temperature=1e-3).solve()"""
    assert _loaded_after(code) == []


def test_loaded_libraries_are_noticed():
    assert _loaded_after("import fltheory as flt; flt.HMC") == ["torch"]


def _section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL).group(1)


def test_the_readme_lists_every_public_name_and_no_other():
    first_cells = re.findall(r"^\|([^|]*)\|", _section("Names"), re.MULTILINE)
    documented = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(fltheory.__all__)


@pytest.mark.parametrize("name", fltheory.__all__)
def test_a_public_name_resolves_and_is_documented(name):
    value = getattr(fltheory, name)
    assert value is getattr(importlib.import_module(f"fltheory.{fltheory._HOME[name]}"), name)
    assert value.__doc__
    assert name in dir(fltheory)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sigmoidal'"):
        fltheory.Sigmoidal  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "fltheory" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    homes = {name: f"fltheory.{module}" for name, module in fltheory._HOME.items()}
    assert seen == homes | dict.fromkeys(fltheory._ROOMS, "fltheory")


# Documents ---------------------------------------------------------------------------------------


def test_the_readme_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks[0].splitlines()) <= 15, "the first example is short"
    (tmp_path / "readme.py").write_text("\n".join(blocks), encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-W", "error", "readme.py"], cwd=tmp_path, env=environment, check=True, timeout=240
    )


def test_the_readme_and_the_continuous_integration_run_the_same_command():
    main = 'python -m pip install -c constraints.txt -e ".[data]" && python -m fltheory'
    test = 'python -m pip install -c constraints.txt -e ".[test]" && python -m pytest'
    assert main in README.splitlines()
    assert test in README.splitlines()
    assert f"step '{test}'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_links_in_the_documents_lead_somewhere():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        for link in links:
            assert re.match(r"https?://", link) or (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_citation_file_is_complete_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == fltheory.__version__
    assert all(citation[key] for key in ("message", "title", "authors"))
    for reference in citation["references"]:
        assert all(reference[key] for key in ("type", "title", "authors"))


def test_the_changelog_begins_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE).group(1) == fltheory.__version__


def test_no_tracked_file_mentions_a_place_on_some_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True)
    place = re.compile(r"(?<![\w.~>-])/(?:work|home|root|Users)/\w")
    for name in filter(None, tracked.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            assert not place.search(content.decode("utf-8", "replace")), name
