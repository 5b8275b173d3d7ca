"""The thread that listens for changes, and its subscription."""

from __future__ import annotations

import logging
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unexpired.stores._redis_link import boot

if TYPE_CHECKING:
    from unexpired.stores._redis_news import News

__all__ = ["Watcher"]

_log = logging.getLogger("unexpired")

_FIRST = 2.0
"""Seconds that the first look may wait for the subscription."""
_BEAT = 1.0
_SILENCE = 2.0
"""Seconds without news after which the server is asked whether it is still there."""
_PATIENCE = 3.0
"""Seconds that it has to say so."""
_SHORTEST, _LONGEST = 0.05, 1.0


class Subscription:
    """The news of one channel.

    A break is an error at once: the client itself would mend it, and tell nobody what was missed.
    """

    def __init__(self, news: Any, channel: str) -> None:
        self._news = news
        try:
            news.subscribe(channel)
            self._connection = news.connection
        except BaseException:
            news.close()
            raise

    def hear(self, timeout: float) -> list[Any] | None:
        """What is said within *timeout* seconds: the kind of message, the channel, the message."""
        if not self._connection.can_read(timeout=timeout):
            return None
        said: Any = self._connection.read_response(disconnect_on_error=False, push_request=True)
        # The answer to a question of ours may be a bare word.
        answer: list[Any] = [said] if isinstance(said, bytes | str) else said
        return answer

    def ask(self) -> None:
        """Make the server say something."""
        self._connection.send_command("PING", check_health=False)

    def cut(self) -> None:
        """End it from another thread."""
        self._connection.disconnect()

    def close(self) -> None:
        """Give its connection back, closed."""
        self._news.close()


class Watcher:
    """The thread that listens. It holds on to nobody: when its `News` is gone, it ends."""

    def __init__(self, news: News) -> None:
        self._news = weakref.ref(news)
        self._link = news.link
        self._over = threading.Event()
        self._tried = threading.Event()
        self._started = boot()
        self._complained = False
        self.looked = threading.Event()
        self._subscription: Subscription | None = None
        self._thread = threading.Thread(target=self._run, name="unexpired:redis-news", daemon=True)

    def start(self) -> None:
        """Begin. Where no thread can be started, copies get stale by the clock."""
        try:
            self._thread.start()
        except RuntimeError:
            self._tried.set()

    def wait(self) -> None:
        """Until the first attempt has succeeded or failed, within reason."""
        left = self._started + _FIRST - boot()
        if left > 0.0:
            self._tried.wait(left)

    def stop(self) -> None:
        """End it, and its connection."""
        self._over.set()
        subscription = self._subscription
        if subscription is not None:
            # It may be waiting for news; the end of its connection is some.
            with suppress(Exception):
                subscription.cut()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_BEAT)

    def _run(self) -> None:
        pause = _SHORTEST
        while not self._over.is_set() and self._news() is not None:
            since = boot()
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may do better
                self._tell(error)
            finally:
                self._leave()
            pause = _SHORTEST if boot() - since > _LONGEST else min(2 * pause, _LONGEST)
            self._over.wait(pause)

    def _listen(self) -> None:
        subscription = self._subscription = Subscription(self._link.client.pubsub(), self._link.channel)
        heard, asked = boot(), 0.0
        while not self._over.is_set():
            said = subscription.hear(_BEAT)
            news, now = self._news(), boot()
            if news is None or self._over.is_set():
                return
            if said is not None:
                heard, asked = now, 0.0
                self._pass_on(news, said)
            elif asked and now - asked > _PATIENCE:
                raise TimeoutError
            elif not asked and now - heard > _SILENCE:
                asked = now
                subscription.ask()
            del news

    def _pass_on(self, news: News, said: list[Any]) -> None:
        if said[0] in (b"message", "message"):
            news.hear(said[2])
        elif said[0] in (b"subscribe", "subscribe"):
            news.subscribed()
            self._tried.set()
            self._complained = False
            if not self.looked.is_set():
                self._link.check_durability()
                self.looked.set()

    def _leave(self) -> None:
        news, subscription, self._subscription = self._news(), self._subscription, None
        if news is not None and news._watcher is self:
            news.broken()
        self._tried.set()
        if subscription is not None:
            with suppress(Exception):
                subscription.close()

    def _tell(self, error: Exception) -> None:
        if not self._over.is_set() and not self._complained:
            self._complained = True
            _log.warning(
                "cannot listen to %s: %s. Until it can be, changes by other processes are seen later",
                self._link.where,
                self._link.why(error),
            )
