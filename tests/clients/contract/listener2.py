"""The listener's sibling that speaks HTTP/2 from the first byte (RFC 9113 §3.3): many calls on one connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded


class Listener2:
    """Answers each request with the status that `respond` gives for its token."""

    def __init__(self, respond: Callable[[str], int]) -> None:
        self.tokens: list[str] = []
        self.connections = 0
        self._respond = respond
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="listener2", daemon=True)]
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # closing alone does not wake a thread that accepts or receives
        for each in (self._listening, *self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)
        for each in (self._listening, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="listener2 call", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        speaking = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        speaking.initiate_connection()
        raw.sendall(speaking.data_to_send())
        asked: dict[int, str] = {}
        try:
            while data := raw.recv(65536):
                for event in speaking.receive_data(data):
                    if isinstance(event, RequestReceived):
                        assert event.headers is not None
                        headers = {str(name): str(value) for name, value in event.headers}
                        asked[event.stream_id or 0] = headers.get("authorization", "").removeprefix("Bearer ")
                    elif isinstance(event, StreamEnded):
                        token = asked[event.stream_id]
                        self.tokens.append(token)
                        speaking.send_headers(event.stream_id, [(":status", str(self._respond(token)))])
                        speaking.send_data(event.stream_id, b"{}", end_stream=True)
                raw.sendall(speaking.data_to_send())
        except OSError:
            return
