"""RedisStore on a Redis of its own, beside the bare client that sends the same commands; and commands per waiter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import redis

from benchmarks.fleet_release import TASKS, Fleet
from benchmarks.measure import Row, median, timed
from benchmarks.stores import KEY, Floor, chain, figures, leased, redis_server, session_of
from unexpired._core.record import decode
from unexpired.stores.redis import RedisStore

OPERATIONS, ROUNDS = 30, 7


class _Recorder(redis.Redis):
    """A client that remembers what it sent."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sent: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Send it."""
        self.sent.append(command)
        return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]


class _Bare:
    """The bare client, sending once more what a store sent."""

    def __init__(self, url: str) -> None:
        self._raw: Any = redis.Redis.from_url(url)
        recorder: Any = _Recorder.from_url(url)
        store = RedisStore(recorder, prefix="recorded")
        session = session_of(KEY)
        store.swap(KEY, None, session)
        leased(store)

        def sent(work: Callable[[], object]) -> list[tuple[Any, ...]]:
            recorder.sent.clear()
            work()
            found = list(recorder.sent)
            if not found:
                raise RuntimeError("the store sent nothing by way of execute_command")
            return found

        self._place = f"recorded:session:{{{KEY}}}"
        self._at_first = self._raw.dump(self._place)
        self._load = sent(lambda: store.load(KEY)) * OPERATIONS
        self._lease = sent(lambda: leased(store)) * OPERATIONS
        steps = pairwise(chain(session, OPERATIONS))
        self._swaps = sent(lambda: [store.swap(KEY, *step) for step in steps])
        store.close()
        recorder.close()

    def load(self) -> float:
        """Seconds of a load, which is more than what the client brings: a session."""
        send = self._raw.execute_command
        return timed(lambda: [decode(send(*one)[0], KEY, "Redis") for one in self._load]) / OPERATIONS

    def ask(self) -> float:
        """Seconds of what the client does for it."""
        return self._each(self._load)

    def lease(self) -> float:
        """Seconds of a lease that is taken and given back."""
        return self._each(self._lease)

    def swap(self) -> float:
        """Seconds of a swap."""
        self._raw.restore(self._place, 0, self._at_first, replace=True)
        return self._each(self._swaps)

    def heard(self, work: Callable[[], float]) -> float:
        """Whoever wants to hear of changes hears of its own: seconds of *work* while a thread of ours does."""
        news = self._raw.pubsub(ignore_subscribe_messages=True)
        news.subscribe(**{"recorded:news": lambda _: None})
        listening = news.run_in_thread(sleep_time=1.0, daemon=True)
        try:
            return work()
        finally:
            listening.stop()
            self._raw.publish("recorded:news", "the end")
            listening.join()

    def close(self) -> None:
        """Hang up."""
        self._raw.close()

    def _each(self, commands: list[tuple[Any, ...]]) -> float:
        send = self._raw.execute_command
        return timed(lambda: [send(*command) for command in commands]) / OPERATIONS


def _costs(url: str) -> list[Row]:
    bare = _Bare(url)
    nobody = "where nobody listens"
    floors = {
        "load": Floor("the bare client and decode", bare.load, ("by the bare client alone", bare.ask)),
        "swap": Floor("the bare client, heard", lambda: bare.heard(bare.swap), (nobody, bare.swap)),
        "lease": Floor("the bare client, heard", lambda: bare.heard(bare.lease), (nobody, bare.lease)),
    }
    store = RedisStore(url)
    try:
        return figures("RedisStore", store, 0.7, OPERATIONS, floors)
    finally:
        store.close()
        bare.close()


class _Monitor:
    """What the server is asked, by whom; commands inside of scripts apart."""

    def __init__(self, url: str) -> None:
        self._raw: Any = redis.Redis.from_url(url)
        self._heard: list[tuple[str, str]] = []
        self._began, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(url,))
        self._thread.start()
        self._mark("begin", self._began)

    def _listen(self, url: str) -> None:
        raw: Any = redis.Redis.from_url(url)
        with raw, raw.monitor() as monitor:
            for one in monitor.listen():
                said = str(one["command"])
                if "the begin" in said:
                    self._began.set()
                elif "the end" in said:
                    self._over.set()
                    return
                elif one["client_type"] != "lua":
                    self._heard.append((f"{one['client_address']}:{one['client_port']}", said))

    def _mark(self, which: str, heard: threading.Event) -> None:
        while not heard.wait(0.05):
            self._raw.echo(f"the {which}")

    def sent_by(self, name: str) -> int:
        """How many commands the clients of that name have sent meanwhile. Ends it."""
        theirs = {one["addr"] for one in self._raw.client_list() if one["name"] == name}
        self._mark("end", self._over)
        self._thread.join()
        self._raw.close()
        return sum(client in theirs for client, _ in self._heard)


def _commands(url: str, processes: int) -> Row:
    fleet = Fleet(url, processes, theirs=f"{url}?client_name=waiter")
    counts = []
    try:
        for _ in range(ROUNDS):
            monitor = _Monitor(url)
            fleet.release()
            counts.append(monitor.sent_by("waiter") / processes)
    finally:
        fleet.close()
    number = median(counts)
    title = f"RedisStore: commands per waiting process, of {processes}"
    note = f"at most {max(counts):.2f}; {TASKS} waiters in each"
    return Row(title, number, "commands", None, "≤ 3", number <= 3, note)


def rows() -> Iterator[Row]:
    """All figures of this store but the time until waiters go on, which `fleet_release` takes for all stores."""
    with redis_server() as server:
        yield from _costs(server.url)
        yield _commands(server.url, 4)
