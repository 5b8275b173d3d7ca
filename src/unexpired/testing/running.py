"""Starting and stopping the embedded server: on a thread of this process, or as a child process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unexpired.testing._config import ServerConfig
from unexpired.testing._handle import ServerHandle
from unexpired.testing.app import ServerApp

if TYPE_CHECKING:
    from unexpired.testing._connection import Listener

__all__ = ["running_server", "serve", "server_process"]

_LOOPBACK = "127.0.0.1"
_PATIENCE_SECONDS = 30.0


@contextmanager
def running_server(
    config: ServerConfig | None = None, *, port: int = 0, tls: tuple[str, str] | None = None
) -> Generator[ServerHandle, None, None]:
    """Run the server on a thread of this process, with an event loop of its own, until the block ends.

    It listens on 127.0.0.1, on a free port unless *port* names one; *tls* is the paths of a certificate and
    its key. Leaving the block cuts every connection, also of calls that are still held. The thread shares
    this process's interpreter lock: measure with `server_process`. Raises `ImportError` without uvicorn,
    `OSError` when the port is taken.
    """
    _listener_kind()
    started: Future[tuple[str, Callable[[], None]]] = Future()
    thread = threading.Thread(
        target=_run,
        args=(config or ServerConfig(), port, tls, started),
        name="unexpired-test-server",
        daemon=True,
    )
    thread.start()
    url, stop = started.result()
    try:
        yield ServerHandle(url, os.getpid())
    finally:
        stop()
        thread.join()


@contextmanager
def server_process(
    config: ServerConfig | None = None, *, port: int = 0, tls: tuple[str, str] | None = None
) -> Generator[ServerHandle, None, None]:
    """Run the server as a child process until the block ends; arguments as for `running_server`.

    The child ends when this process does, however that ends. Raises `RuntimeError` when it does not start;
    what it had to say is on standard error.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-P", "-m", "unexpired.testing", "--port", str(port)]
    command += ["--config", json.dumps((config or ServerConfig()).to_json())]
    if tls is not None:
        command += ["--tls", *tls]
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    # the command is this interpreter and this package; nothing in it comes from elsewhere
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603
    with child:
        try:
            line = b"" if child.stdout is None else child.stdout.readline()
            if not line:
                raise RuntimeError("the server process did not start")
            ready = json.loads(line)
            yield ServerHandle(ready["url"], ready["pid"])
        finally:
            _dismiss(child)


def _dismiss(child: subprocess.Popen[bytes]) -> None:
    try:
        # a line, not only the end of input: a forked process may hold another copy of this pipe
        child.communicate(b"\n", _PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


async def serve(
    config: ServerConfig,
    *,
    port: int = 0,
    tls: tuple[str, str] | None = None,
    ready: Callable[[str, Callable[[], None]], None],
) -> None:
    """Serve on the running event loop until told to stop.

    *ready* is called once with the server's URL and the function that stops it, which any thread may call, at
    any time and again. Raises as `running_server` does.
    """
    listener = _listener_kind()(ServerApp(config), tls)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        with suppress(RuntimeError):  # the loop has closed: stopped already
            loop.call_soon_threadsafe(stopped.set)

    bound = await listener.start(_LOOPBACK, port)
    try:
        ready(_url(bound, tls), stop)
        await stopped.wait()
    finally:
        await listener.stop()


def _run(
    config: ServerConfig,
    port: int,
    tls: tuple[str, str] | None,
    started: Future[tuple[str, Callable[[], None]]],
) -> None:
    def ready(url: str, stop: Callable[[], None]) -> None:
        started.set_result((url, stop))

    try:
        asyncio.run(serve(config, port=port, tls=tls, ready=ready))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


def _listener_kind() -> type[Listener]:
    """What listens. Raises `ImportError` that says what to install."""
    try:
        from unexpired.testing._connection import Listener  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("h11", "uvicorn"):
            raise
        raise ImportError(
            "The embedded server needs uvicorn: pip install 'unexpired[testing]'", name="uvicorn"
        ) from None
    return Listener


def _url(port: int, tls: tuple[str, str] | None) -> str:
    return f"{'http' if tls is None else 'https'}://{_LOOPBACK}:{port}"
