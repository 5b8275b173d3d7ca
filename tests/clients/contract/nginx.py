"""A real nginx in front of a server: TLS and HTTP/2, HTTP/1.1 beside it, and refusals while a body is on its way."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.grants.endpoint import CERTIFICATE

__all__ = ["Nginx", "Passed", "nginx"]

_PATIENCE = 20.0
_FRAME = """\
daemon off;
worker_processes 1;
{user}
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format passed '$server_protocol $status $connection $request_method $uri';
    access_log {home}/access.log passed;
    client_body_temp_path {home}/bodies;
    proxy_temp_path {home}/answers;
    fastcgi_temp_path {home}/f;
    uwsgi_temp_path {home}/u;
    scgi_temp_path {home}/s;
    client_max_body_size {largest};
    keepalive_requests 100000;
    {upstream}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{secure} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        {places}
    }}
}}
"""
_UPSTREAM = "upstream behind {{ server {address}; keepalive 128; }}"
_PASS = """
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering {buffering};"""
_PLACES = """
        location / {{ {guarded} {to}
        }}
        location = /guard {{
            proxy_pass_request_body off;
            proxy_set_header Content-Length ""; {to}
        }}"""


@dataclass(frozen=True)
class Passed:
    """One request that went through."""

    protocol: str
    status: int
    connection: int
    method: str
    path: str


@dataclass(frozen=True)
class Nginx:
    """Where it listens, and what it has seen."""

    url: str
    """Its origin for HTTP/1.1 without TLS."""
    tls: str
    """Its origin for TLS, with HTTP/2 for who asks for it."""
    home: Path

    def passed(self, count: int) -> list[Passed]:
        """Every request so far, at least *count*: each is written down once its answer is on its way."""
        until = time.monotonic() + _PATIENCE
        while True:
            # the last line may still be in the making
            lines = (self.home / "access.log").read_text().split("\n")[:-1]
            if len(lines) >= count:
                return [_passed(line) for line in lines]
            assert time.monotonic() < until, f"{len(lines)} requests of {count} went through"
            time.sleep(0.005)


def _passed(line: str) -> Passed:
    protocol, status, connection, method, path = line.split(" ", 4)
    return Passed(protocol, int(status), int(connection), method, path)


@contextmanager
def nginx(
    home: Path,
    upstream: str = "",
    *,
    guard: bool = False,
    buffering: bool = True,
    largest: str = "1g",
    places: str = "",
) -> Iterator[Nginx]:
    """Run nginx with its files in the new directory *home*, in front of the server at the address *upstream*.

    With *guard* it asks that server's ``/guard`` about the head of each request, and passes a refusal on before it has
    read the body. Without *buffering* a body goes on while it comes. Bodies over *largest* are refused. *places* takes
    the place of all that: locations in nginx's own words.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    assert program, "these tests need nginx, which was not found: make system-packages"
    home.mkdir()
    with ExitStack() as stack:
        # nginx takes over open sockets as it does from its predecessor: no port is chosen twice, and no caller is early
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512)) for _ in range(2)]
        for one in sockets:
            one.setblocking(False)
        plain, secure = (one.getsockname()[1] for one in sockets)
        to = _PASS.format(buffering="on" if buffering else "off")
        text = _FRAME.format(
            home=home,
            user="user root;" if os.geteuid() == 0 else "",
            certificate=CERTIFICATE,
            plain=plain,
            secure=secure,
            largest=largest,
            upstream=_UPSTREAM.format(address=urlsplit(upstream).netloc) if upstream else "",
            places=places or _PLACES.format(guarded="auth_request /guard;" if guard else "", to=to),
        )
        (home / "nginx.conf").write_text(text)
        command = [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]
        numbers = [one.fileno() for one in sockets]
        child = subprocess.Popen(command, env=_environment(numbers), pass_fds=numbers)
        stack.callback(_end, child)
        running = Nginx(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}", home)
        _await(child, running)
        yield running


def _environment(numbers: list[int]) -> Mapping[str, str]:
    return os.environ | {"NGINX": "".join(f"{number};" for number in numbers)}


def _await(child: subprocess.Popen[bytes], running: Nginx) -> None:
    """Wait until it runs: its pid is the last thing that it writes before it serves."""
    until = time.monotonic() + _PATIENCE
    while not (running.home / "pid").exists():
        said = (running.home / "error.log").read_text() if child.poll() is not None else ""
        assert child.returncode is None, f"nginx did not start: {said}"
        assert time.monotonic() < until, "nginx did not start in time"
        time.sleep(0.005)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
