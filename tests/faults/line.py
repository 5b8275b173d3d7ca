"""A way through to a server that can be led to another one, and that can take its time."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress

from tests.stores.proxy import Proxy

__all__ = ["Line"]


class Line(Proxy):
    """A proxy whose *delay* is how many seconds anything takes, each way."""

    delay = 0.0

    def lead_to(self, port: int) -> None:
        """From now on it leads to *port*; what goes on where it led before ends."""
        self._to = port
        self._drop()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._deliver, args=(waiting, one, other), daemon=True).start()
        with suppress(OSError):
            while data := one.recv(65536):
                frozen = not self._passing.is_set()
                self._passing.wait()
                if frozen:
                    break
                waiting.put((time.monotonic() + self.delay, data))
        waiting.put((time.monotonic() + self.delay, b""))

    def _deliver(
        self, waiting: queue.SimpleQueue[tuple[float, bytes]], one: socket.socket, other: socket.socket
    ) -> None:
        """Send each thing when its time has come; the end of one side is the end of both."""
        with suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
