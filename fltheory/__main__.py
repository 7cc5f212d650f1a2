"""``python -m fltheory``: solve and sample one task for several nonlinearities, side by side."""

import argparse
import inspect
import math
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # One thread, set before numpy and torch start theirs: a little slower on idle cores, many times
    # faster where others use them and threads wait.
    for _library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np
from attrs import evolve, frozen
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import fltheory as flt
from fltheory.numerics.validation import Array, check_integer

_NONLINEARITIES = ("Linear", "Sigmoid", "ReLU")
_TASKS: dict[str, tuple[Any, str, Any, tuple[float, ...]]] = {  # class, its classes, read as, by default
    "digits": (flt.Digits, "classes", int, (0, 1, 2)),
    "orthogonal": (flt.OrthogonalClassification, "class_ratios", float, (0.5, 0.25, 0.25)),
}
_CHAINS, _WARMUP = 4, 400  # twice the steps of the default, for shares of codes nearer to equilibrium
_RESOLUTION = 150  # dots an inch


@frozen(eq=False)
class Case:
    """One network: how to write its nonlinearity, and the theory with a remark, or why there is none."""

    imports: str
    source: str
    posterior: flt.DeepNetworkPosterior
    theory: flt.MeanFieldSolution | None = None
    remark: str = ""


def main(argv: list[str] | None = None) -> int:
    """Run the main job with the options ``argv``, those of the command line if None."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command == "figures":
        return _write_figures(options)
    try:
        draws, seed = check_integer("draws", options.draws), check_integer("seed", options.seed, minimum=0)
        output = _check_output(options.output)
        task, task_source = _task(options.task, options.samples)
        cases = [_case(name, task, options) for name in options.nonlinearity or _NONLINEARITIES]
        cases = [_solve(case, seed) for case in cases]
        print("The same in Python:\n\n" + _python_lines(cases, task_source, draws, seed), flush=True)
        networks = [_sample(case, draws, seed) for case in cases]
    except (ValueError, TypeError, ImportError) as error:
        parser.error(str(error))
    _figure(cases, networks).savefig(output, dpi=_RESOLUTION)
    print(f"\nfigure: {output}")
    return 0


# Options -----------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m fltheory",
        description="Solve and sample Bayesian neural networks on one task: print theory against networks "
        "for each nonlinearity, and draw their representations.",
    )

    def add(option: str, default: object, text: str, **settings: Any) -> None:
        parser.add_argument(option, default=default, help=f"{text} (default: {default})", **settings)

    add("--task", "digits", "digits[:0,1,2] or orthogonal[:0.5,0.25,0.25], with classes or their shares")
    add("--samples", 100, "number of training inputs", type=int, metavar="P")
    parser.add_argument(
        "--nonlinearity",
        action="append",
        metavar="PHI",
        help="a name such as Sigmoid, Tanh or ReLU, or module:Class for your own; may be repeated "
        f"(default: {', '.join(_NONLINEARITIES)})",
    )
    add("--depth", 1, "number of hidden layers", type=int, metavar="L")
    add("--width", 400, "neurons in a hidden layer", type=int, metavar="N")
    add("--temperature", 1e-4, "temperature of the posterior", type=float, metavar="T")
    add("--seed", 0, "of everything random", type=int)
    add("--draws", 100, "draws from each of four chains", type=int, metavar="D")
    add("--output", "fltheory.png", "where to write the figure", metavar="FILE")
    _add_figures(parser)
    return parser


def _add_figures(parser: argparse.ArgumentParser) -> None:
    """The command ``figures``; without a command the main job runs."""
    commands = parser.add_subparsers(dest="command", metavar="figures")
    text = "compute and write the four composed figures; figures --help for its options"
    figures = commands.add_parser("figures", help=text, description=f"{text.partition(';')[0].capitalize()}.")
    figures.add_argument(
        "--output",
        default="figures",
        metavar="FOLDER",
        help="where to write them; networks are saved there too, and a run that was interrupted goes on "
        "(default: figures)",
    )
    figures.add_argument("--quick", action="store_true", help="small versions, in a minute, to try it out")
    figures.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    figures.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="coding_schemes, overview, drift or readouts; may be repeated (default: all)",
    )
    figures.set_defaults(fail=figures.error)


def _write_figures(options: argparse.Namespace) -> int:
    from fltheory.figures import NAMES, write_figures

    begin = time.perf_counter()

    def report(line: str) -> None:
        print(f"{time.perf_counter() - begin:6.0f} s  {line}", flush=True)

    try:
        write_figures(options.output, options.only or NAMES, options.quick, options.seed, report=report)
    except (ValueError, TypeError, OSError, flt.CheckpointError) as error:
        options.fail(str(error))
    return 0


def _check_output(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ValueError(
            f"output: expected a file in a directory that exists and can be written to, got {text}"
        )
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"output: expected a file name that ends in one of {', '.join(known)}, got {text}")
    return path


def _task(text: str, n_samples: int) -> tuple[flt.Task, str]:
    """The task of an option like digits:0,1,2, and how to write it in Python."""
    name, colon, classes = text.partition(":")
    try:
        kind, keyword, read, default = _TASKS[name]
        values = tuple(read(value) for value in classes.split(",")) if colon else default
    except (KeyError, ValueError):
        raise ValueError(
            f"task: expected digits or orthogonal, with classes as in digits:0,1,2 or their shares as in "
            f"orthogonal:0.5,0.25,0.25, got {text}"
        ) from None
    task = kind(n_samples=n_samples, **{keyword: values})
    return task, f"flt.{kind.__name__}(n_samples={n_samples}, {keyword}={values})"


def _nonlinearity(text: str) -> tuple[flt.Nonlinearity, str, str]:
    """An instance of a class by public name or module:Class; its import and its name in Python."""
    module, colon, name = text.rpartition(":")
    try:
        kind = getattr(import_module(module) if colon else flt, name)
    except AttributeError:
        public = ", ".join(name for name in flt.__all__ if _is_nonlinearity(getattr(flt, name)))
        expected = f"a class in {module}" if colon else f"one of {public} or module:Class"
        raise ValueError(f"nonlinearity: expected {expected}, got {text}") from None
    except Exception as error:  # whatever a user's module raises
        raise ValueError(f"nonlinearity: cannot import {module} ({type(error).__name__}: {error})") from error
    if not _is_nonlinearity(kind):
        raise ValueError(f"nonlinearity: expected a subclass of Nonlinearity with all it needs, got {text}")
    try:
        phi = kind()
    except Exception as error:
        raise ValueError(f"nonlinearity: {text} cannot be made without arguments ({error})") from error
    return phi, (f"from {module} import {name}" if colon else ""), (name if colon else f"flt.{name}")


def _is_nonlinearity(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, flt.Nonlinearity) and not inspect.isabstract(value)


def _case(name: str, task: flt.Task, options: argparse.Namespace) -> Case:
    phi, imports, source = _nonlinearity(name)
    posterior = flt.DeepNetworkPosterior(
        task,
        phi,
        n_hidden_layers=options.depth,
        width=options.width,
        temperature=options.temperature,
    )
    return Case(imports, f"{source}()", posterior)


# The two answers ---------------------------------------------------------------------------------


def _solve(case: Case, seed: int) -> Case:
    """The case with its theory, or with a line that says why there is none.

    Raises
    ------
    ValueError
        If the targets cannot be fitted at T = 0, by no network at all.
    """
    start = time.perf_counter()
    try:
        theory = case.posterior.solve(seed=seed)
    except flt.ConvergenceError as error:
        return evolve(case, remark=f"theory: did not converge: {error}")
    except ValueError as error:
        if str(error).startswith("temperature:"):
            raise
        return evolve(case, remark=f"theory: not covered: {error}")
    seconds = time.perf_counter() - start
    return evolve(case, theory=theory, remark=f"theory: {theory.method}, {seconds:.1f} s")


def _sample(case: Case, draws: int, seed: int) -> flt.PosteriorSamples:
    """Networks of the case; prints all that is known of it."""
    print(f"\n{case.source}\n{case.remark}")
    if case.theory is not None:
        print(_summary(case.theory), flush=True)
    start = time.perf_counter()
    networks = case.posterior.sample(n_draws=draws, n_chains=_CHAINS, n_warmup=_WARMUP, seed=seed)
    print(f"networks: {time.perf_counter() - start:.1f} s")
    print(networks.diagnostics() if case.theory is None else flt.compare(case.theory, networks), flush=True)
    return networks


def _summary(theory: flt.MeanFieldSolution) -> str:
    lines = [f"residual {theory.residual:.1e}"]
    if theory.certificate is not None:
        lines[0] += f", certificate {theory.certificate:.6f}"
    for branch in theory.branches:
        if branch.code is None:
            spread = _row(np.sqrt(np.diagonal(branch.readout_covariance)))
            lines.append(f"analog code, readout weights Gaussian of standard deviation {spread}")
        else:
            code = "-".join(map(str, branch.code))
            lines.append(f"code {code}: probability {branch.probability:.3f}, readout {_row(branch.readout)}")
    for outlier in theory.outliers:
        lines.append(f"condensed neuron, readout sqrt(N) times {_row(outlier.readout)}")
    return "\n".join(lines)


def _row(values: Array) -> str:
    return f"({', '.join(f'{value:.2f}' for value in values)})"


def _python_lines(cases: list[Case], task: str, draws: int, seed: int) -> str:
    """What does the same from Python."""
    posterior = cases[0].posterior
    settings = (
        f"n_hidden_layers={posterior.n_hidden_layers}, width={posterior.width}, "
        f"temperature={_number(posterior.temperature)}"
    )
    layer = posterior.n_hidden_layers
    lines = ["import fltheory as flt", *filter(None, (case.imports for case in cases)), "", f"task = {task}"]
    sampling = f"n_draws={draws}, n_chains={_CHAINS}, n_warmup={_WARMUP}, seed={seed}"
    for case in cases:
        lines += ["", f"posterior = flt.DeepNetworkPosterior(task, {case.source}, {settings})"]
        shown, theory = "networks", ""
        if case.theory is not None:
            shown, theory = "theory, networks", ", theory"
            lines.append(f"theory = posterior.solve(seed={seed})")
        lines.append(f"networks = posterior.sample({sampling})")
        lines.append(f"print({'networks.diagnostics()' if case.theory is None else f'flt.compare({shown})'})")
        lines.append(f"flt.plot_kernels({shown}, layer={layer})")
        lines.append(f"flt.plot_activations(networks, layer={layer})")
        lines.append(f"flt.plot_readouts(networks{theory}, output=0)")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f'float("{value}")' if math.isinf(value) else repr(value)


def _figure(cases: list[Case], networks: list[flt.PosteriorSamples]) -> Figure:
    """A row for each case: kernels of theory and networks, activations, readouts."""
    padding = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)  # inches
    figure = Figure(figsize=(13.0, 3.2 * len(cases)), layout=padding)
    rows = figure.subfigures(len(cases), 1, squeeze=False)[:, 0]
    for row, case, samples in zip(rows, cases, networks, strict=True):
        layer = case.posterior.n_hidden_layers
        row.suptitle(f"{case.source.removeprefix('flt.')}, layer {layer}", fontsize=11, fontweight="bold")
        left, right, activations, readouts = row.subplots(1, 4, width_ratios=(1.0, 1.0, 1.2, 1.1))
        if case.theory is None:
            left.set_axis_off()
            left.text(0.5, 0.5, "no theory", ha="center", transform=left.transAxes)
            flt.plot_kernels(samples, layer=layer, ax=right)
        else:
            flt.plot_kernels(case.theory, samples, layer=layer, ax=[left, right])
        flt.plot_activations(samples, layer=layer, ax=activations)
        flt.plot_readouts(samples, case.theory, output=0, ax=readouts)
    return figure


if __name__ == "__main__":
    sys.exit(main())
