"""Whether samplers are exact on small networks: the rank test on every combination.

    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --covering
    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --sampler HMC --output matrix.md
    OMP_NUM_THREADS=1 python benchmarks/sampler_matrix.py --covering --calibration --replicates 1000

Sampler x depth x nonlinearity x prior x coordinates, 4000 replicates, 8 steps and 6 statistics each: a
row a cell, with the smallest p-value of its statistics times 6 (Bonferroni) and the acceptance. A right
sampler gives 1 of 1000 cells a p below 1e-3, and the smallest of n cells is of the order 1 / n; a verdict
of "alarm" is given below 1e-5. The last line says which error of rank frequencies is seen. Takes about
5 s a cell; without options all cells, more than an hour. ``--calibration``: simulation-based calibration
in place of the rank test, 63 draws 6 steps apart.
"""

import argparse
import time
from pathlib import Path

from fltheory.testing.sampler_matrix import Cell, all_cells, covering_cells

_ALARM = 1e-5
_HEAD = "| p | acceptance | s | cell | |\n|---|---|---|---|---|"


def row(cell: Cell, n_replicates: int, seed: int, calibration: bool) -> tuple[float, float, str]:
    """The p-value of a cell, the smallest error that it would see, and its row of the table."""
    start = time.perf_counter()
    ranks = (cell.calibrate if calibration else cell.test)(n_replicates, seed)
    verdict = (
        "" if ranks.p_value >= _ALARM else f"**alarm**: {min(ranks.p_values, key=ranks.p_values.__getitem__)}"
    )
    seconds = time.perf_counter() - start
    text = f"| {ranks.p_value:.2g} | {ranks.acceptance:.2f} | {seconds:.1f} | {cell} | {verdict} |"
    return ranks.p_value, ranks.smallest_error, text


def main() -> None:
    """Print the table, and write it to a file if asked to; the exit status tells of alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--covering", action="store_true", help="only cells that cover all pairs")
    parser.add_argument("--calibration", action="store_true", help="calibration, not the rank test")
    parser.add_argument("--sampler", default="", help="only samplers with this in their name")
    parser.add_argument("--replicates", type=int, default=4000, help="chains a cell")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first cell")
    parser.add_argument("--output", type=Path, help="a file to write the table to")
    options = parser.parse_args()
    cells = covering_cells() if options.covering else all_cells()
    chosen = [cell for cell in cells if options.sampler in cell.subject.name]
    if not chosen:
        parser.error(f"--sampler: expected a part of a sampler's name, got {options.sampler!r}")
    print(_HEAD)
    rows = []
    for index, cell in enumerate(chosen):
        rows.append(row(cell, options.replicates, options.seed + index, options.calibration))
        print(rows[-1][2], flush=True)
    smallest, error = min(p for p, _, _ in rows), max(e for _, e, _ in rows)
    summary = (
        f"{len(rows)} cells, smallest p {smallest:.2g}; "
        f"errors of {error:.0%} in the frequency of ranks are seen at p < 1e-3 in 90 % of cases"
    )
    print(f"\n{summary}")
    if options.output:
        table = "\n".join([_HEAD, *(text for _, _, text in rows), "", summary, ""])
        options.output.write_text(table, encoding="utf-8")
    raise SystemExit(int(smallest < _ALARM))


if __name__ == "__main__":
    main()
