from __future__ import annotations

import builtins
import importlib
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.engine.script import run
from unexpired.events import Event, LoggedIn
from unexpired.observe import VERSION, _measuring
from unexpired.observe._names import METRICS
from unexpired.observe._subscribing import Keys, Once

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("opentelemetry", "opentelemetry", "opentelemetry")],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing the part of a library that is not there says what to install; another library's absence is its own."""
    plain, absent = builtins.__import__, package

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError("not here", name=absent)
        return plain(name, *more, **named)

    monkeypatch.delitem(sys.modules, f"unexpired.observe.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'unexpired[{extra}]'")) as error:
        importlib.import_module(f"unexpired.observe.{module}")
    assert f"unexpired.observe.{module} needs {package}" in str(error.value)
    absent = "something_else"
    with pytest.raises(ModuleNotFoundError, match="not here"):
        importlib.import_module(f"unexpired.observe.{module}")


def test_the_page_has_the_table_of_names() -> None:
    """Every metric stands in the reference with both names, its kind, its labels and what it counts; no other does."""
    text = PAGE.read_text()
    table = text.partition("## Metrics")[2].partition("## Spans")[0]
    rows = re.findall(r"^\| `unexpired\.([a-z_.]+)` \|(.*)\|$", table, re.MULTILINE)
    listed = dict(rows)
    assert list(listed) == list(METRICS)
    for name, row in listed.items():
        metric = METRICS[name]
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert row == f" `{metric.flat_name}` | {metric.kind} | {labels} | {metric.text} "
    assert f"version {VERSION}" in text


def test_an_event_that_comes_again_is_known() -> None:
    """By what it is and not by what it says: two logins are two. Other events may be told in between."""
    once, first, second = Once(), LoggedIn("alice"), LoggedIn("alice")
    assert once.first(first)
    assert once.first(second)
    assert not once.first(first)
    assert not once.first(second)


def test_threads_do_not_forget_for_each_other() -> None:
    """However much is told elsewhere between the two times that one event is heard here."""
    once, event = Once(), Event("alice")
    assert once.first(event)
    others = threading.Thread(target=lambda: [once.first(Event("bob")) for _ in range(100)])
    others.start()
    others.join(20)
    assert not once.first(event)


def test_an_event_of_no_interest_moves_nothing() -> None:
    """Whatever events there will be."""
    assert list(_measuring.figures(Event("alice"))) == []


def test_a_forked_child_tells_on(tmp_path: Path) -> None:
    """A fork while the parent is in the middle of telling leaves no lock behind that hangs the child's callers."""
    done = run(
        tmp_path,
        """
        from prometheus_client import CollectorRegistry
        from unexpired.observe import _subscribing, prometheus

        registry = CollectorRegistry()
        manager = TokenManager(answer, store=store)
        prometheus.observe(manager, registry=registry)
        manager.login(EXPIRED)
        held, forked = threading.Event(), threading.Event()

        def hold():
            with contextlib.ExitStack() as stack:
                for lock in list(_subscribing._locks):
                    stack.enter_context(lock)
                held.set()
                forked.wait(20)

        threading.Thread(target=hold).start()
        held.wait(20)
        child = os.fork()
        if child == 0:
            manager.token()
            left = registry.get_sample_value("unexpired_token_expires_in_seconds", {"key": "default"})
            prometheus.observe(TokenManager(answer, store=MemoryStore()), registry=registry)
            os._exit(0 if left is not None else 1)
        forked.set()
        end = time.monotonic() + 20
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, 9)
            time.sleep(0.01)
        print("child:", ended[1])
        """,
    )
    assert done.output == "child: 0\n"


def test_every_key_can_be_shown() -> None:
    """A key with broken surrogates is shown as text that can be written anywhere; hashes tell it from others."""
    shown = [Keys(False)(key) for key in ("alice", "ü\n", "\ud800")]
    assert shown == ["alice", "ü\n", "\\ud800"]
    hashed = {Keys(b"secret")(key) for key in ("\ud800", "\udc80", "\\ud800", "ü")}
    assert len(hashed) == 4
    assert all(len(one) == 16 for one in hashed)
