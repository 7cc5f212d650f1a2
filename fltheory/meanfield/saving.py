"""A solution as a file, and back."""

from os import PathLike

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import check_instance
from fltheory.storage.archive import Archive
from fltheory.storage.model import archived, opened, writer_for

KIND = "solution"


def save(solution: MeanFieldSolution, path: "str | PathLike[str]") -> None:
    """Write a solution to one file."""
    writer = writer_for(solution.model)
    record = {"solution": writer.write(solution)}
    archived(KIND, solution.model, writer, record, {}).write(path)


def solution_of(archive: Archive, model: Model | None) -> MeanFieldSolution:
    """The solution in a file, for ``model`` where its nonlinearity is not stock.

    Raises
    ------
    ValueError
        If the file is of another posterior, or of a nonlinearity that is not stock and not given.
    """
    reader, _ = opened(archive, model)
    solution: MeanFieldSolution = check_instance(
        "file", reader.read(archive.record["solution"]), MeanFieldSolution
    )
    return solution
