"""A way through to a server that a test can cut, or freeze as a network does that loses everything."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Listens on a port of its own and passes everything on to *port*, both ways."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = False
        self._over = False
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self._passing.clear()

    def cut(self) -> None:
        """All connections end at once, and so does each new one."""
        self._refusing = True
        self._drop()

    def heal(self) -> None:
        """All is well again. What was frozen on its way is lost with its connection."""
        if not self._passing.is_set():
            self._drop()
        self._refusing = False
        self._passing.set()

    def close(self) -> None:
        """Leave nothing of it."""
        self._over = True
        self.cut()
        self._passing.set()
        # A close alone does not wake who waits for the next connection.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _drop(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                frozen = not self._passing.is_set()
                self._passing.wait()
                if frozen:
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
