"""The results as one HTML page: no script, nothing to load, for light and dark screens and for paper."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib.resources import files

from unexpired.cli._demo.results import Result, broken, counted, figures
from unexpired.cli._demo.waterfall import KINDS, waterfall

__all__ = ["page"]

_METHOD = (
    "Real sockets on 127.0.0.1, against an authorization server that rotates refresh tokens and ends the login of "
    "whoever sends a used one. All calls of a scene are let go at the same instant. The floor was measured in the same "
    "run: the same bursts of calls with a good token and without unexpired, plus one token request, one after the "
    "other. A scene can beat it, because its refresh begins while answers are still coming in; and all this is one "
    "measurement, which a busy machine moves by tens of per cent."
)


def page(results: Sequence[Result]) -> str:
    """The page, also well-formed XML. Holds names, counts and times: no token, no secret, no address."""
    style = (files("unexpired.cli._demo") / "report.css").read_text("utf-8")
    failures = sum(bool(broken(result)) for result in results)
    lead = "Every promise held." if not failures else f"Promises were broken in {failures} of {_scenes(results)}."
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en" xmlns="http://www.w3.org/1999/xhtml">',
            "<head>",
            '<meta charset="utf-8"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            '<meta name="color-scheme" content="light dark"/>',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
            "<title>unexpired: one refresh for everybody</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            "<header>",
            "<h1>One refresh for everybody</h1>",
            f'<p class="lead">{lead} {_totals(results)}</p>',
            f'<p class="fine">{_METHOD} {_where()}</p>',
            "</header>",
            _table(results),
            _legend(),
            *(_section(result) for result in results),
            "</body>",
            "</html>",
            "",
        ]
    )


def _totals(results: Sequence[Result]) -> str:
    calls = counted(sum(result.callers for result in results), "call")
    refreshes = counted(sum(len(result.refreshes) for result in results), "refresh", "refreshes")
    hung = sum(result.hung for result in results)
    reuse = sum(result.reuse_detected for result in results)
    return (
        f"{calls} in {_scenes(results)}, {refreshes}, {reuse or 'no'} reuse detected, "
        f"{counted(hung, 'call') if hung else 'no calls'} left hanging."
    )


def _scenes(results: Sequence[Result]) -> str:
    return counted(len(results), "scene")


def _where() -> str:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{when}, Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} processors."


def _table(results: Sequence[Result]) -> str:
    heads = ("", "scene", "callers", "served", "told", "refreshes", "reuse", "time", "floor", "ratio")
    rows = [
        "<tr>"
        + _sign(result)
        + f'<td><a href="#{escape(result.scene)}">{escape(result.scene)}</a></td>'
        + "".join(f"<td>{cell}</td>" for cell in figures(result).values())
        + "</tr>"
        for result in results
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f'<div class="card"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _sign(result: Result) -> str:
    return '<td class="bad">✗</td>' if broken(result) else '<td class="good">✓</td>'


def _legend() -> str:
    keys = "".join(f'<li><i class="{kind}"></i>{text}</li>' for kind, text in KINDS.items())
    return f'<ul class="legend">{keys}<li><i class="floor"></i>the floor</li></ul>'


def _section(result: Result) -> str:
    served = f"{result.told} told" if result.fails else f"{result.served} served"
    cells = figures(result)
    facts = [
        counted(result.callers, "caller"),
        served,
        counted(len(result.refreshes), "refresh", "refreshes"),
        cells["time"],
    ]
    if cells["ratio"]:
        facts.append(f"{cells['ratio']} of the floor")
    wrong = "".join(f'<p class="bad">{escape(sentence)}</p>' for sentence in broken(result))
    return "\n".join(
        [
            f'<section class="card" id="{escape(result.scene)}">',
            f"<h2>{escape(result.scene)}</h2>",
            f'<p class="about">{escape(result.about)}</p>',
            '<p class="facts">' + "".join(f"<span>{fact}</span>" for fact in facts) + "</p>",
            wrong,
            waterfall(result),
            "</section>",
        ]
    )
