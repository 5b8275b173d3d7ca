"""Starting and stopping: on a thread, as a process, with TLS, and without uvicorn."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import unexpired.testing
from tests.testing.wire import (
    TIMEOUT,
    bearer,
    open_socket,
    read_to_end,
    refresh,
    refresh_request,
    request_bytes,
    send,
)
from unexpired.testing import ServerConfig, ServerHandle, running_server, server_process
from unexpired.testing.__main__ import main

ROOT = Path(unexpired.testing.__file__).resolve().parents[2]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m unexpired.testing` and make sure that it is gone afterwards."""
    command = [sys.executable, "-m", "unexpired.testing", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def ready(child: subprocess.Popen[bytes]) -> ServerHandle:
    """Read the line with which a server process says where it is."""
    assert child.stdout is not None
    line = json.loads(child.stdout.readline())
    assert line.keys() == {"url", "pid"}
    return ServerHandle(line["url"], line["pid"])


def refuses(server: ServerHandle) -> bool:
    """Tell whether nobody listens at the server's address any more."""
    try:
        open_socket(server).close()
    except ConnectionRefusedError:
        return True
    return False


def _serving() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "unexpired-test-server"}


def test_thread() -> None:
    """A server on a thread serves on loopback until its block ends, then its thread and its port are gone."""
    before = _serving()
    with running_server() as server:
        assert _serving() > before
        assert (urlsplit(server.url).hostname, server.pid) == ("127.0.0.1", os.getpid())
        assert send(server, "GET", "/api/x", headers=bearer(server.login())).status == 200
    assert _serving() == before
    assert refuses(server)


def test_two_servers() -> None:
    """Two servers at once share nothing."""
    with running_server() as one, running_server() as other:
        token = one.login()["refresh_token"]
        assert refresh(other, token).status == 400
        assert refresh(one, token).status == 200


def test_stopping_with_calls_in_the_air(caplog: pytest.LogCaptureFixture) -> None:
    """Stopping cuts calls that are held, waiting or streaming, at once and without a word in the log."""
    with caplog.at_level(logging.DEBUG, "uvicorn"):
        with running_server() as server:
            server.faults([{"kind": "hold", "name": "x"}, {"kind": "timeout_before", "seconds": 60}])
            token = server.login()
            wires = [open_socket(server) for _ in range(3)]
            wires[0].sendall(refresh_request(token["refresh_token"]))
            wires[1].sendall(refresh_request(token["refresh_token"]))
            server.wait("token_request_received", 2)
            wires[2].sendall(request_bytes("GET", "/api/events", headers=bearer(token)))
            server.wait("api_call_held")
            before = time.monotonic()
        assert time.monotonic() - before < 10
        for wire in wires:
            read_to_end(wire)
            wire.close()
    assert _said(caplog) == []


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")]


def test_quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Requests are not logged, at whatever level, and nothing is printed."""
    with caplog.at_level(logging.DEBUG, "uvicorn"), running_server() as server:
        send(server, "GET", "/api/x", headers=bearer(server.login()))
    assert _said(caplog) == []
    assert capfd.readouterr() == ("", "")


def test_port_taken() -> None:
    """A port that is taken is an `OSError` for who starts the server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="address already in use"), running_server(port=port):
            pass


def test_given_port() -> None:
    """A port that is asked for is the one that is used."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with running_server(port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.stats().logins == 0


def test_a_bent_clock_does_not_bend_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that patches this process's clocks does not change what the server takes for expired."""
    with running_server() as server:
        login = server.login()
        monkeypatch.setattr(time, "time", lambda: 9e9)
        assert send(server, "GET", "/api/x", headers=bearer(login)).status == 200


def test_process() -> None:
    """A server process serves with the settings it was given and is gone after its block."""
    config = ServerConfig(access_lifetime=5, clients={"only": None}, expired_code="7")
    with server_process(config) as server:
        assert server.pid != os.getpid()
        assert server.login()["expires_in"] == 5
        assert refresh(server, server.login()["refresh_token"]).status == 401
    assert refuses(server)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_process_that_can_not_start() -> None:
    """A server process that does not start is an error, not a wait."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match="did not start"), server_process(port=port):
            pass


@pytest.mark.parametrize("last_words", [b"", b"\n"])
def test_process_ends_with_its_standard_input(last_words: bytes) -> None:
    """`python -m unexpired.testing` ends, with status 0, when its input ends or says anything."""
    with started("--port", "0") as child:
        server = ready(child)
        assert child.poll() is None
        assert server.stats().logins == 0
        _, errors = child.communicate(last_words, timeout=20)
        assert (child.returncode, errors) == (0, b"")


def test_process_does_not_outlive_its_parent() -> None:
    """When the process that started a server is killed, the server ends by itself."""
    script = (
        "import os, signal\n"
        "from unexpired.testing import server_process\n"
        "with server_process() as server:\n"
        "    print(server.url, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    parent = subprocess.run(command, capture_output=True, env=environment, timeout=30, check=False)
    server = ServerHandle(parent.stdout.decode().strip(), 0)
    until = time.monotonic() + 20
    while not refuses(server):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_command_line() -> None:
    """Settings can be given as flags: numbers, text, switches, and JSON for the rest."""
    flags = ["--access-lifetime", "9", "--no-rotate", "--scope", "read", "--expires-in", '"9"', "--id-token"]
    with started(*flags, "--clients", '{"public": null}', "--config", '{"grace": 3}') as child:
        server = ready(child)
        login = server.login()
        assert (login["expires_in"], login["scope"], "id_token" in login) == ("9", "read", True)
        assert refresh(server, login["refresh_token"]).status == 401


def test_kept_without_input() -> None:
    """With `--keep` the server does not look at its input, and serves until a signal comes."""
    with started("--keep") as child:
        server = ready(child)
        assert child.stdin is not None
        child.stdin.write(b"anything\n")
        child.stdin.close()
        for _ in range(20):
            assert server.login()["token_type"] == "Bearer"
        child.send_signal(signal.SIGINT)
        assert child.wait(TIMEOUT) == 0


def helped(capsys: pytest.CaptureFixture[str]) -> str:
    """What `--help` says, on one line."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--help` says when the server ends, how to log in without Python, and what each setting means and is."""
    monkeypatch.setenv("COLUMNS", "1000")
    text = helped(capsys)
    assert "ends as soon as its standard input ends or says anything" in text
    assert "--keep do not look at standard input" in text
    assert "curl -X POST URL/_control/login" in text
    for each in dataclasses.fields(ServerConfig):
        flag = re.escape("--" + each.name.replace("_", "-"))
        assert re.search(rf"{flag}(, --no-[a-z-]+| VALUE) [A-Z][^`*]{{15,}}\. \(default: ", text), each.name
    assert "--grace VALUE For how long the refresh token before the current one is still answered." in text


def test_help_without_the_source(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only compiled files are installed the settings are listed with their defaults."""

    def unreadable(_: object) -> str:
        raise OSError("no source")

    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(inspect, "getsource", unreadable)
    assert "--grace VALUE (default: 0.0)" in helped(capsys)


def test_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that makes no sense ends with status 2 and a sentence."""
    with pytest.raises(SystemExit) as ended:
        main(["--grace", "long"])
    assert ended.value.code == 2
    assert "grace must be" in capsys.readouterr().err


def test_without_uvicorn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without uvicorn both ways to start say, in one sentence, what to install, and begin no thread."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "uvicorn" or name == "unexpired.testing._connection":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    begun: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: begun.append(thread.name))
    with pytest.raises(ImportError, match=r"pip install 'unexpired\[testing\]'") as error, running_server():
        pass
    assert begun == []
    assert error.value.__cause__ is None
    assert main([]) == 1
    assert "pip install 'unexpired[testing]'" in capsys.readouterr().err


def test_import_is_light() -> None:
    """Importing the package loads neither uvicorn nor an HTTP client of others."""
    script = "import sys, unexpired.testing\nprint(sorted({'uvicorn', 'h11', 'httpx', 'httpx2'} & set(sys.modules)))\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert shown.stdout.strip() == b"[]"


def test_tls(tmp_path: Path) -> None:
    """With a certificate the server speaks TLS, its handle too, and a reset is still a reset."""
    with running_server(tls=_certificate(tmp_path)) as server:
        assert server.url.startswith("https://")
        login = server.login()
        server.expire(login["access_token"])
        assert server.stats().logins == 1
        server.faults([{"kind": "reset_after_commit"}])
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        wire = context.wrap_socket(open_socket(server), server_hostname="127.0.0.1")
        wire.sendall(refresh_request(login["refresh_token"]))
        # below TLS: Python's ssl tells of a reset as of an end
        with socket.socket(fileno=wire.detach()) as raw:
            raw.settimeout(TIMEOUT)
            assert read_to_end(raw).reset
        assert server.stats().refreshes == 1


def _certificate(directory: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return str(paths[0]), str(paths[1])
