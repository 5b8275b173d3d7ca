"""`python -m unexpired.testing`: the embedded server as a process.

Prints one JSON line, `{"url": …, "pid": …}`, when it listens, and ends when its standard input ends or says
anything, so that it never outlives the one who started it. With `--keep` it ends when it is told to by a signal.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import dataclasses
import inspect
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence

from unexpired.testing._config import ServerConfig
from unexpired.testing.running import serve

__all__ = ["main"]

_DESCRIPTION = """\
An authorization server and an API on 127.0.0.1, with the faults of real ones, for programs that refresh tokens.

Prints one line when it listens, {"url": ..., "pid": ...}, and ends as soon as its standard input ends or says
anything; where there is no input, as in a service or with </dev/null, that is at once: give --keep there.
"""

_EPILOG = """\
Log in without Python; what comes back is a token answer (RFC 6749 5.1):

  curl -X POST URL/_control/login
  curl -X POST URL/_control/login -d '{"subject": "alice", "client_id": "public", "scope": "api"}'

Then the API is URL/api/..., the token endpoint URL/oauth/token, and POST URL/_control/expire lets every access
token be expired. GET URL/_control/stats tells what the server saw.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until standard input ends (see `--keep`); 0, or 1 with a sentence on standard error."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    port, tls, settings, keep = given.pop("port"), given.pop("tls"), given.pop("config"), given.pop("keep")
    try:
        config = ServerConfig().changed({**settings, **given})
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    try:
        paths = None if tls is None else (tls[0], tls[1])
        asyncio.run(serve(config, port=port, tls=paths, ready=_announce if keep else _announce_and_watch))
    except KeyboardInterrupt:
        return 0
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unexpired.testing",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; a free one by default")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="paths of PEM files")
    parser.add_argument(
        "--keep", action="store_true", help="do not look at standard input: run until Ctrl-C or SIGTERM"
    )
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="settings as one JSON object")
    settings = parser.add_argument_group("settings", "All durations are seconds. What is not plain text is JSON.")
    meanings, defaults = _meanings(), ServerConfig().to_json()
    for each in dataclasses.fields(ServerConfig):
        flag = "--" + each.name.replace("_", "-")
        default = f"(default: {json.dumps(defaults[each.name])})"
        text = f"{meanings.get(each.name, '')} {default}".strip().replace("%", "%%")
        if isinstance(each.default, bool):
            settings.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            settings.add_argument(flag, type=_value, default=argparse.SUPPRESS, metavar="VALUE", help=text)
    return parser


def _meanings() -> dict[str, str]:
    """What stands below each field of `ServerConfig`, by its name; nothing where there is no source to read."""
    try:
        (record,) = ast.parse(inspect.getsource(ServerConfig)).body
    except OSError:
        return {}
    found: dict[str, str] = {}
    name = ""
    for statement in record.body if isinstance(record, ast.ClassDef) else ():
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                continue
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                found[name] = " ".join(text.replace("`", "").replace("*", "").split())
            case _:
                name = ""
    return found


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _announce(url: str, _: Callable[[], None]) -> None:
    print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)


def _announce_and_watch(url: str, stop: Callable[[], None]) -> None:
    def watch() -> None:
        # not sys.stdin: a buffered reader's lock, held by a daemon thread, aborts the interpreter's exit
        os.read(0, 1)
        stop()

    _announce(url, stop)
    threading.Thread(target=watch, name="unexpired-stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
