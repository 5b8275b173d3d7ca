"""`python -m unexpired.testing`: the embedded server as a process.

Prints one JSON line, `{"url": …, "pid": …}`, when it listens, and ends when its standard input ends or says
anything, so that it never outlives the one who started it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence

from unexpired.testing._config import ServerConfig
from unexpired.testing.running import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until standard input ends; 0, or 1 with a sentence on standard error."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    port, tls, settings = given.pop("port"), given.pop("tls"), given.pop("config")
    try:
        config = ServerConfig().changed({**settings, **given})
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    try:
        asyncio.run(serve(config, port=port, tls=None if tls is None else (tls[0], tls[1]), ready=_announce))
    except KeyboardInterrupt:
        return 0
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unexpired.testing", description="An authorization server with faults."
    )
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; a free one by default")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="paths of PEM files")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="settings as one JSON object")
    for each in dataclasses.fields(ServerConfig):
        flag = "--" + each.name.replace("_", "-")
        if isinstance(each.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(flag, type=_value, default=argparse.SUPPRESS)
    return parser


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _announce(url: str, stop: Callable[[], None]) -> None:
    def watch() -> None:
        # not sys.stdin: a buffered reader's lock, held by a daemon thread, aborts the interpreter's exit
        os.read(0, 1)
        stop()

    print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
    threading.Thread(target=watch, name="unexpired-stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
