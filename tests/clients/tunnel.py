"""A proxy on a real socket that opens tunnels (RFC 9110 §9.3.6) and remembers what it was asked."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any, Self


class Tunnel:
    """Opens every tunnel that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        tunnel = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                """Read the request, connect, and pass on what comes, both ways."""
                lines = [self.rfile.readline().decode()]
                while lines[-1] not in ("\r\n", ""):
                    lines.append(self.rfile.readline().decode())
                tunnel.asked.append("".join(lines))
                host, _, port = lines[0].split()[1].rpartition(":")
                with socket.create_connection((host, int(port))) as there:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=_pass_on, args=(there, self.connection))
                    back.start()
                    _pass_on(self.connection, there)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="tunnel")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _pass_on(source: Any, target: Any) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side has hung up: the other gets to know by its end.
        for end in (source, target):
            end.close()
