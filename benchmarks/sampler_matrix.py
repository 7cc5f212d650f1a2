"""Whether samplers are exact on small networks: the rank test on every combination.

    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --covering
    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --sampler HMC --output matrix.md
    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --covering --calibration --replicates 1000

Sampler x depth x nonlinearity x prior x coordinates, 4000 replicates, 8 steps and 6 statistics each: a
row a cell, with the smallest p-value of its statistics times 6 (Bonferroni) and the acceptance. A right
sampler gives 1 of 1000 cells a p below 1e-3, and the smallest of n cells is of the order 1 / n; a verdict
of "alarm" is given below 1e-5. "Error seen": what relative error in the counts of ranks gives p < 1e-3 in
90 % of cases. Takes about 5 s a cell; without options all cells, two hours: rows are written to
``--output`` as they are found, and the same command goes on where a run was cut off. ``--calibration``:
simulation-based calibration in place of the rank test, 63 draws 6 steps apart.
"""

import argparse
import os
import time
from pathlib import Path

from fltheory.testing.sampler_matrix import Cell, all_cells, covering_cells

_ALARM = 1e-5
_HEAD = "| p | acceptance | s | error seen | cell | |\n|---|---|---|---|---|---|"
_CELL = 4  # the column


def row(cell: Cell, n_replicates: int, seed: int, calibration: bool) -> str:
    """The row of a cell in the table."""
    start = time.perf_counter()
    ranks = (cell.calibrate if calibration else cell.test)(n_replicates, seed)
    verdict = (
        "" if ranks.p_value >= _ALARM else f"**alarm**: {min(ranks.p_values, key=ranks.p_values.__getitem__)}"
    )
    seconds = time.perf_counter() - start
    error = f"{ranks.smallest_error:.0%}"
    return f"| {ranks.p_value:.2g} | {ranks.acceptance:.2f} | {seconds:.1f} | {error} | {cell} | {verdict} |"


def main() -> None:
    """Print the table, and write it to a file if asked to; the exit status tells of alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--covering", action="store_true", help="only cells that cover all pairs")
    parser.add_argument("--calibration", action="store_true", help="calibration, not the rank test")
    parser.add_argument("--sampler", default="", help="only samplers with this in their name")
    parser.add_argument("--replicates", type=int, default=4000, help="chains a cell")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first cell")
    parser.add_argument("--output", type=Path, help="a file for the table, to which a later run adds")
    options = parser.parse_args()
    cells = covering_cells() if options.covering else all_cells()
    chosen = [cell for cell in cells if options.sampler in cell.subject.name]
    if not chosen:
        parser.error(f"--sampler: expected a part of a sampler's name, got {options.sampler!r}")
    print(_HEAD)
    found = [line for line in _lines(options.output) if line.startswith("| ") and "| p |" not in line]
    known = {line.split(" | ")[_CELL] for line in found}
    with open(options.output or os.devnull, "a", encoding="utf-8") as file:
        if not found:
            print(_HEAD, file=file)
        for index, cell in enumerate(chosen):
            if str(cell) in known:
                continue
            found.append(row(cell, options.replicates, options.seed + index, options.calibration))
            print(found[-1], flush=True)
            print(found[-1], file=file, flush=True)
    smallest = min(float(line.split(" | ")[0].removeprefix("| ")) for line in found)
    print(f"\n{len(found)} cells, smallest p {smallest:.2g}")
    raise SystemExit(int(smallest < _ALARM))


def _lines(path: Path | None) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []


if __name__ == "__main__":
    main()
