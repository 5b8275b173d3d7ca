"""What other processes have changed, heard as it happens: who keeps a copy knows when to look again."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager

from unexpired.stores._redis_link import Link, boot
from unexpired.stores._redis_watcher import Watcher

__all__ = ["News", "Waiter", "news_of"]

_TICKS = 4
"""How often in a second a copy is taken for stale while there is no subscription."""
_MANY = 200_000


class Waiter:
    """Somebody who waits for a lease. *freed* says that it may be free now."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.freed = True


class _Marks(dict[str, object]):
    """For each name an object that stays the same until its session may have changed."""

    def __init__(self, news: News) -> None:
        super().__init__()
        # No circle: what nobody uses any more is gone at once, and with it the thread that listens for it.
        self._news = weakref.ref(news)

    def __missing__(self, name: str) -> object:
        news = self._news()
        return _tick() if news is None else news.first_look(name)


def _tick() -> int:
    return int(boot() * _TICKS)


class News:
    """What this process has heard of the sessions in one place. One subscription serves all its stores there.

    While the subscription is broken, what was known stays known; when it is back, everything is looked at again,
    because news may have been missed. Before there was one, copies get stale four times a second.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.marks = _Marks(self)
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._watcher: Watcher | None = None
        self._there = False
        self._waiters: dict[str, list[Waiter]] = {}
        self._held: dict[str, float] = {}
        self._own: set[str] = set()
        _all.add(self)

    # -- copies -------------------------------------------------------------------------------------------------

    def first_look(self, name: str) -> object:
        """What marks *name* from now on."""
        if not self._there:
            self.start().wait()
        if not self._there:
            return _tick()
        if len(self.marks) > _MANY:
            self.marks.clear()
        return self.marks.setdefault(name, object())

    def expect(self, change: str) -> None:
        """This process is about to make *change*: what is heard of it will be no news."""
        if self._there:
            self._own.add(change)

    def made(self, change: str, name: str, *, surely: bool = True) -> None:
        """It was made, or (not *surely*) may yet be."""
        if not surely:
            self._own.discard(change)
        self.marks.pop(name, None)
        self._wake(name, freed=False)

    def refused(self, change: str) -> None:
        """It was not made."""
        self._own.discard(change)

    # -- leases -------------------------------------------------------------------------------------------------

    @contextmanager
    def waiter(self, name: str) -> Generator[Waiter]:
        """Hears of everything that happens to *name*."""
        one = Waiter()
        with self._lock:
            self._waiters.setdefault(name, []).append(one)
        self.start()
        try:
            yield one
        finally:
            with self._lock:
                others = self._waiters.get(name, [])
                if one in others:
                    others.remove(one)
                if not others:
                    self._waiters.pop(name, None)

    def found_held(self, name: str, until: float, waiter: Waiter) -> None:
        """The lease is somebody's, as far as known until boot time *until*."""
        with self._lock:
            if not waiter.freed:
                self._held[name] = until

    def held_until(self, name: str) -> float:
        """Until when nobody has to ask for the lease again."""
        return self._held.get(name, 0.0)

    def freed(self, name: str) -> None:
        """The lease was given back."""
        self._wake(name, freed=True)

    def _wake(self, name: str | None, *, freed: bool) -> None:
        with self._lock:
            if freed and name is None:
                self._held.clear()
            elif freed and name is not None:
                self._held.pop(name, None)
            waiters = (
                self._waiters.get(name, ())
                if name is not None
                else [one for some in self._waiters.values() for one in some]
            )
            for one in waiters:
                one.freed = one.freed or freed
                one.woken.set()

    # -- hearing ------------------------------------------------------------------------------------------------

    def hear(self, said: bytes | str) -> None:
        """One message: ``s:<change>:<name>`` for stored, ``r::<name>`` for released."""
        text = said.decode("ascii", "replace") if isinstance(said, bytes) else said
        kind, _, rest = text.partition(":")
        change, _, name = rest.partition(":")
        if kind == "r":
            self.freed(name)
        elif change in self._own:
            self._own.discard(change)
        else:
            self.marks.pop(name, None)
            self._wake(name, freed=False)

    def subscribed(self) -> None:
        """From here on nothing is missed; something may have been before."""
        self._there = True
        self._own.clear()
        self.marks.clear()
        self.link.back()
        self._wake(None, freed=True)

    def broken(self) -> None:
        """Something may be missed from here on."""
        self._there = False

    def start(self) -> Watcher:
        """See that somebody listens."""
        watcher = self._watcher
        if watcher is None:
            with self._lock:
                watcher = self._watcher
                if watcher is None:
                    watcher = self._watcher = Watcher(self)
            watcher.start()
        return watcher

    def leave(self, user: object) -> None:
        """*user* has no more need of it; when nobody has, nobody listens any more."""
        self.users.discard(user)
        if not self.users:
            with self._lock:
                watcher, self._watcher = self._watcher, None
                self._there = False
            self.marks.clear()
            if watcher is not None:
                watcher.stop()

    def renew(self) -> None:
        """In a forked child: the thread that listened is the parent's, and so is its connection."""
        _inherited.append(self._watcher)
        self._lock = threading.Lock()
        self._watcher = None
        self._there = False
        self._waiters, self._held, self._own = {}, {}, set()
        self.marks.clear()


_all: weakref.WeakSet[News] = weakref.WeakSet()
_by_place: weakref.WeakValueDictionary[object, News] = weakref.WeakValueDictionary()
_inherited: list[object] = []
_guard = threading.Lock()


def news_of(link: Link) -> News:
    """What this process hears of the place that *link* leads to: the same for all links there."""
    with _guard:
        news = _by_place.get(link.identity)
        if news is None:
            news = _by_place[link.identity] = News(link)
        return news


def _after_fork() -> None:
    global _guard  # noqa: PLW0603 - the child needs a lock that no thread of the parent holds
    _guard = threading.Lock()
    for news in list(_all):
        news.renew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
