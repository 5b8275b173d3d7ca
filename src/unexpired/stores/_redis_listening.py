"""How `RedisStore` hears of changes: a subscription to one channel, on a connection of its own."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import Any

from unexpired.errors import StoreError
from unexpired.stores._listening import PATIENCE, Run
from unexpired.stores._redis_link import Link

__all__ = ["Hearing"]


class Hearing:
    """Subscribes. A break is an error at once: the client itself would mend it, and tell nobody what was missed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.checked = False

    def __call__(self, run: Run) -> None:
        """See `Listen`. Raises StoreError."""
        news: Any = self._link.client.pubsub()
        try:
            news.subscribe(self._link.channel)
            self._follow(news.connection, run)
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            raise StoreError(f"cannot listen to {self._link.where}: {self._link.why(error)}") from None
        finally:
            run.poke = bool
            with suppress(Exception):
                news.close()

    def reads(self) -> bool:
        """Whether a session could be read now."""
        return self._link.answers()

    def _follow(self, connection: Any, run: Run) -> None:
        def hear(timeout: float) -> bool:
            if not connection.can_read(timeout=timeout):
                return False
            said: Any = connection.read_response(disconnect_on_error=False, push_request=True)
            # The answer to a question of ours may be a bare word.
            kind: Any = None if isinstance(said, bytes | str) else said[0]
            if kind in (b"message", "message"):
                text: Any = said[2]
                run.heard(text.decode("ascii", "replace") if isinstance(text, bytes) else text)
            return True

        run.poke = partial(_cut, connection)
        if not hear(PATIENCE):  # the word that it is subscribed
            raise TimeoutError
        self._link.back()
        run.up()
        if not self.checked:
            self._link.check_durability()
            self.checked = True
        run.follow(hear, partial(connection.send_command, "PING", check_health=False))


def _cut(connection: Any) -> None:
    # Closed by the thread that reads from it: until then its number must not be given to another connection.
    with suppress(Exception):
        connection._sock.shutdown(socket.SHUT_RDWR)
