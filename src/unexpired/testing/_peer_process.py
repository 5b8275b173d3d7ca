"""A child process on the same sessions, as `peer_process` of a store's contract says, spoken to through its pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.testing._lease_contract import KEY, LONG, check, lease

__all__ = ["WINS", "Peer", "contend", "main"]

WINS = 100
"""How often each of two processes wins before it stops swapping, if there is time."""
_TIME = 5.0


class Peer:
    """The child, from here. It is gone at the end of the block."""

    def __init__(self, opener: tuple[str, ...]) -> None:
        check(len(opener) > 0 and ":" in opener[0], f"peer_process() begins with 'module:function', not {opener!r}")
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "unexpired.testing._peer_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            text=True,
            encoding="ascii",
        )
        self._in, self._out = cast("TextIO", self._child.stdin), cast("TextIO", self._child.stdout)
        self._tell([sys.path, *opener])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._in.close()  # which is how it hears that it is over
            if kind is None:
                self._child.wait(LONG)
        except (OSError, subprocess.TimeoutExpired):
            pass  # it is dead, or hangs
        finally:
            self.kill()
            self._out.close()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self._child.kill()
        self._child.wait()

    def begin(self, name: str, *arguments: Any) -> None:
        """Have it do something, without waiting for its answer."""
        self._tell([name, *arguments])

    def answer(self) -> Any:
        """What it says next. AssertionError when it raised, ended, or says nothing within a minute."""
        bound = threading.Timer(2 * LONG, self._child.kill)
        bound.start()
        try:
            line = self._out.readline()
        finally:
            bound.cancel()
        check(line.endswith("\n"), "the child process ended or hung (its standard error says why)")
        said = json.loads(line)
        check("raised" not in said, f"in the child process: {said.get('raised')}")
        return said["answer"]

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have it do something: its answer."""
        self.begin(name, *arguments)
        return self.answer()

    def load(self) -> Session | None:
        """What the child loads."""
        return _session(self.ask("load"))

    def swap(self, expected: Session | None, new: Session) -> bool:
        """Whether the child stored *new*."""
        return bool(self.ask("swap", _text(expected), _text(new)))

    def lease(self, *, seconds: float = 60.0, wait: float = 0.0, key: str = KEY) -> bool | None:
        """None when it got no lease, else whether that is a timed one. It holds one at a time."""
        timed: bool | None = self.ask("lease", key, seconds, wait)
        return timed

    def last_words(self) -> list[Any]:
        """What a killed child had said and nobody has read, without a line that breaks off."""
        return [json.loads(line)["answer"] for line in self._out.readlines() if line.endswith("\n")]

    def _tell(self, what: list[Any]) -> None:
        with suppress(OSError):  # a child that is gone is told by its answer
            self._in.write(f"{json.dumps(what)}\n")
            self._in.flush()


def contend(store: Store, name: str) -> list[int]:
    """Mint one version after another, each from whatever is stored by then: the versions that were won."""
    won: list[int] = []
    start = time.monotonic()
    while len(won) < WINS and not (won and time.monotonic() > start + _TIME):
        check(time.monotonic() < start + LONG, f"no swap was let through within {LONG:g} s, beside one other process")
        before = store.load(KEY)
        if before is None:
            raise AssertionError("a session is gone")
        after = before.minted(Token(f"{name} {before.version + 1}"))
        if store.swap(KEY, before, after):
            won.append(after.version)
    return won


class _Acts:
    """What the child does when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held: HeldLease | None = None

    def load(self) -> Iterator[str | None]:
        yield _text(self.store.load(KEY))

    def swap(self, expected: str | None, new: str) -> Iterator[bool]:
        following = _session(new)
        yield following is not None and self.store.swap(KEY, _session(expected), following)

    def lease(self, key: str, seconds: float, wait: float) -> Iterator[bool | None]:
        self.held = lease(self.store, key, seconds=seconds, wait=wait)
        yield None if self.held is None else self.held.timed

    def release(self) -> Iterator[None]:
        if self.held is not None:
            self.held.release()
        yield None

    def contend(self) -> Iterator[list[int]]:
        yield contend(self.store, "there")

    def mint(self) -> Iterator[int]:
        """For ever, each version as soon as it is reported to be stored."""
        while (before := self.store.load(KEY)) is not None:
            after = before.minted(Token(f"access {before.version + 1}"))
            if self.store.swap(KEY, before, after):
                yield after.version


def main() -> None:
    """Do what standard input says, line by line, until it ends."""
    with open(os.dup(1), "w", encoding="ascii") as out:
        os.dup2(2, 1)  # what the store prints is no answer
        path, opener, *arguments = json.loads(sys.stdin.readline())
        sys.path[:] = path
        module, _, function = opener.partition(":")
        store = getattr(import_module(module), function)(*arguments)
        acts = _Acts(store)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            _act(getattr(acts, name), arguments, out)
        store.close()


def _act(act: Callable[..., Iterator[Any]], arguments: list[Any], out: TextIO) -> None:
    try:
        for answer in act(*arguments):
            out.write(f"{json.dumps({'answer': answer})}\n")
            out.flush()
    except Exception as error:  # noqa: BLE001 - it is anybody's store
        out.write(f"{json.dumps({'raised': repr(error)})}\n")
        out.flush()


def _text(session: Session | None) -> str | None:
    return None if session is None else encode(session).decode("ascii")


def _session(text: str | None) -> Session | None:
    return None if text is None else decode(text, KEY, "a pipe")


if __name__ == "__main__":
    main()
