from __future__ import annotations

import socket
import threading
from typing import Any

import httpx2
import pytest

from tests.grants.calling import FRESH, bounded, join_token_calls, redeem, trusting
from tests.grants.endpoint import Peer, Request, Script, dribbling_body, dribbling_head, endpoint, saying, silent
from unexpired.errors import AnswerLost, NotSent

TOTAL = 3.0


def no_thread_starts(_: threading.Thread) -> None:
    """Stand in for `Thread.start` where the system has none left."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("script", [silent, dribbling_head, dribbling_body])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_deadline_is_for_all_of_it(script: Script, tls: bool) -> None:
    """A server that dribbles headers or body, or says nothing, is cut off at the deadline (scenario 55)."""
    with endpoint(script, tls=tls) as served, bounded(), pytest.raises(AnswerLost):
        redeem(served, timeout=TOTAL, http=trusting() if tls else None)
    join_token_calls()
    assert len(served.requests) == 1


def test_the_deadline_holds_for_a_kept_connection() -> None:
    """On a connection that a client of one's own kept open, a dribbling answer is left behind in time (scenario 55)."""
    calls: list[Request] = []

    def script(peer: Peer, request: Request) -> None:
        peer.send(FRESH.replace(b"Connection: close\r\n", b""))
        calls.append(request)
        if peer.wire.recv(65536):
            dribbling_body(peer, request)

    with endpoint(script) as served, httpx2.Client() as http:
        assert redeem(served, http=http).access_token == "a1"
        with bounded(), pytest.raises(AnswerLost):
            redeem(served, http=http, timeout=TOTAL)
        assert served.connections == 1
        join_token_calls()


def test_the_deadline_holds_for_a_handshake() -> None:
    """A server that takes the connection and never answers the handshake is left in time: nothing was sent."""
    with endpoint(silent, handshake=False) as served, bounded(), pytest.raises(NotSent):
        redeem(served.url.replace("http:", "https:"), timeout=0.3)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_holds_for_name_resolution(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers after the deadline holds nobody up, and not a byte is sent any more (scenario 55)."""
    answered = threading.Event()
    resolve = socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        assert answered.wait(10)
        return resolve(*args, **named)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        with bounded(), pytest.raises(NotSent, match="no answer in time"):
            redeem(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/token", timeout=0.2)
        answered.set()
        late, _ = listener.accept()
        with late:
            assert late.recv(1) == b""
    join_token_calls()


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_time_nothing_is_sent(timeout: float) -> None:
    """A deadline that has passed already sends nothing."""
    with endpoint(saying(FRESH)) as served, bounded(), pytest.raises(NotSent):
        redeem(served, timeout=timeout)
    assert served.requests == []


def test_without_threads_the_caller_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, the request goes out on the caller's own, and the body still has its deadline."""
    with endpoint(saying(FRESH)) as served, endpoint(dribbling_body) as slow:
        monkeypatch.setattr(threading.Thread, "start", no_thread_starts)
        assert redeem(served).access_token == "a1"
        with bounded(), pytest.raises(AnswerLost, match="too slow"):
            redeem(slow, timeout=2.0)


def test_without_threads_a_late_connection_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is looked at last before sending, whoever sends: a connection that came too late stays unused."""
    resolve = socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        threading.Event().wait(0.2)
        return resolve(*args, **named)

    with endpoint(saying(FRESH)) as served:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        monkeypatch.setattr(threading.Thread, "start", no_thread_starts)
        with pytest.raises(NotSent, match="no answer in time"):
            redeem(served, timeout=0.1)
    assert served.requests == []


def test_the_end_of_the_program_waits_for_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is not out yet when the main thread has ended is given up, and never sent."""
    answered = threading.Event()
    resolve = socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        assert answered.wait(10)
        return resolve(*args, **named)

    with endpoint(saying(FRESH)) as served:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        monkeypatch.setattr(threading, "main_thread", threading.Thread)
        with bounded(), pytest.raises(NotSent):
            redeem(served, timeout=30)
        answered.set()
        join_token_calls()
    assert served.requests == []


def test_an_interrupt_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the waiting caller is handed on, and the request on the wire ends with it."""
    sent = threading.Event()

    def script(peer: Peer, _request: Request) -> None:
        sent.set()
        peer.hold()

    real = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and timeout is not None and timeout > 0.1:
            assert real(sent, 5)
            raise KeyboardInterrupt
        return real(event, timeout)

    with endpoint(script) as served:
        monkeypatch.setattr(threading.Event, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            redeem(served, timeout=30)
        monkeypatch.undo()
        join_token_calls()
