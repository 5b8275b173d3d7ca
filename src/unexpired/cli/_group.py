"""The commands as one click group, and how its ways to end become an exit status."""

from __future__ import annotations

from collections.abc import Sequence

import click

import unexpired
from unexpired.cli.demo import demo

__all__ = ["run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(unexpired.__version__, prog_name="unexpired", message="%(prog)s %(version)s")
def _unexpired() -> None:
    """One token refresh for every thread, task and process. Nobody is logged out by a race."""


_unexpired.add_command(demo)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command and return its exit status."""
    try:
        status = _unexpired.main(arguments, prog_name="unexpired", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Stopped.", err=True)
        return 130
    return status if isinstance(status, int) else 0
