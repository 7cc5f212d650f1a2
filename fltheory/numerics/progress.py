"""Progress bars for long work."""

import sys
import warnings
from typing import Any


def progress_bar(total: int | None, description: str, progress: bool | None, initial: int = 0) -> Any:
    """A tqdm bar, also in notebooks; ``progress=None`` shows it on a terminal only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, initial=initial, desc=description, disable=not shown, leave=False)
