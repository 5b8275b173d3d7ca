"""The command line, `unexpired` or `python -m unexpired`. Needs an extra: `pip install 'unexpired[demo]'`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = ("click", "rich", "h11", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* (default: those of this process) name, and return its exit status.

    0: all went well; 1: something did not; 2: it was called wrongly, or a package that it needs is not installed;
    130: stopped by Ctrl-C. A sentence on standard error says which. Loads click and rich only when called.
    """
    try:
        from unexpired.cli._group import run

        return run(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        print(
            f"This command needs {missing}, which is not installed: pip install 'unexpired[demo]'",
            file=sys.stderr,
        )
        return 2
