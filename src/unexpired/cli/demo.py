"""`unexpired demo`: the promises, shown on real sockets at the moment when a token expires."""

from __future__ import annotations

import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unexpired.cli._demo.live import View
    from unexpired.cli._demo.results import Result
    from unexpired.cli._demo.scenes import Scene, Settings

__all__ = ["demo"]

_TASKS_PER_PROCESS = 25
_LEGEND = "floor: the same calls with a good token, plus one refresh, one after the other"


@click.command()
@click.option("--scene", "names", multiple=True, metavar="NAME", help="Play this scene only; repeatable.")
@click.option(
    "--callers",
    type=click.IntRange(1, 2000),
    help=f"Callers in each scene [default: 50], or in each of its processes [default: {_TASKS_PER_PROCESS}].",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=8, show_default=True, help="Processes in their scenes."
)
@click.option(
    "--refresh-latency",
    type=click.FloatRange(0, 5),
    default=0.1,
    show_default=True,
    metavar="SECONDS",
    help="How long the server takes for a refresh.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as a JSON list, one object per scene.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Where the picture of every call goes [default: a new file among the temporary ones; none with --json].",
)
@click.option("--list", "only_list", is_flag=True, help="List the scenes and end.")
def demo(
    *,
    names: tuple[str, ...],
    callers: int | None,
    processes: int,
    refresh_latency: float,
    as_json: bool,
    html: Path | None,
    only_list: bool,
) -> int:
    """Let many callers meet an expired token at one instant, and show what happens.

    Starts an authorization server with an API on 127.0.0.1, in a process of its own. It rotates refresh tokens, and
    whoever sends a used one loses the login. Each scene is measured beside its floor from the same run: what the
    same calls cost with a good token, plus one refresh, one after the other.

    The exit status is 0 only if every promise was held: one refresh, nobody logged out, nobody left hanging, and
    everybody got the response to their own request.
    """
    from unexpired.cli._demo.live import view_for

    _require("uvicorn")
    if html is not None and not html.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {str(html.parent)!r}", param_hint="--html")
    # what the command has to say, it shows: warnings of the library would come in between
    logging.getLogger("unexpired").addHandler(logging.NullHandler())
    if not (as_json or only_list):
        click.echo("One refresh for everybody: starting a server that detects the reuse of refresh tokens ...")
    scenes, settings = _chosen(names, callers, processes, refresh_latency)
    if only_list:
        click.echo("\n".join(f"{scene.name:<22} {scene.about}" for scene in scenes))
        return 0
    with view_for(sys.stderr if as_json else sys.stdout, [scene.name for scene in scenes], quiet=as_json) as view:
        results = _played(scenes, settings, view)
    if as_json:
        from unexpired.cli._demo.results import to_json

        click.echo(json.dumps([to_json(result) for result in results], indent=2))
    kept = _conclude(results, view, as_json=as_json)
    if html is not None or not as_json:
        view.say(f"Every call as a picture: {_drawn(results, html)}")
    return 0 if kept else 1


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"no module named {package!r}", name=package)


def _chosen(
    names: tuple[str, ...], callers: int | None, processes: int, refresh_latency: float
) -> tuple[list[Scene], Settings]:
    from unexpired.cli._demo.scenes import SCENES, Settings

    known = {scene.name: scene for scene in SCENES}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no scene is called {name!r}; --list names them", param_hint="--scene")
    settings = Settings(
        callers=callers or 50,
        per_process=callers or _TASKS_PER_PROCESS,
        processes=processes,
        refresh_latency=refresh_latency,
    )
    return [known[name] for name in dict.fromkeys(names)] or list(SCENES), settings


def _played(scenes: list[Scene], settings: Settings, view: View) -> list[Result]:
    from unexpired.cli._demo.results import broken
    from unexpired.cli._demo.scenes import play
    from unexpired.testing import ServerConfig, server_process

    results: list[Result] = []
    with server_process(ServerConfig(refresh_latency=settings.refresh_latency)) as server:
        for scene in scenes:
            view.begin(scene.name)
            result = play(scene, server, settings, view.stage)
            results.append(result)
            view.end(result, broken(result))
    return results


def _conclude(results: list[Result], view: View, *, as_json: bool) -> bool:
    from unexpired.cli._demo.results import broken, counted

    if not as_json:
        view.say(_LEGEND)
    failures = [(result.scene, sentence) for result in results for sentence in broken(result)]
    for scene, sentence in failures:
        click.echo(f"Promise broken in {scene}: {sentence}", err=True)
    if not failures and not as_json:
        callers = counted(sum(result.callers for result in results), "caller")
        refreshes = counted(sum(len(result.refreshes) for result in results), "refresh", "refreshes")
        view.praise(
            f"Every promise held: {callers} in {counted(len(results), 'scene')}, {refreshes}. No reuse, nobody logged "
            "out by a race, nobody left hanging."
        )
    return not failures


def _drawn(results: list[Result], path: Path | None) -> Path:
    import os
    import tempfile

    from unexpired.cli._demo.report import page

    if path is None:
        handle, name = tempfile.mkstemp(prefix="unexpired-demo-", suffix=".html")
        os.close(handle)
        path = Path(name)
    path.write_text(page(results), "utf-8")
    return path
