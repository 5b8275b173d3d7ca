from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

import pytest

from tests.engine.staging import FRESH, Server
from tests.observe.stage import KEY, Stage, busy
from unexpired import TokenManager
from unexpired.events import FlightEnded
from unexpired.managers import TokenManagers
from unexpired.observe.logging import observe
from unexpired.stores import MemoryStore


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """Give what the logger of flights has written."""
    caplog.set_level(logging.DEBUG)
    return lambda: [record for record in caplog.records if record.name == "unexpired.flights"]


def test_each_flight_is_one_line_with_its_figures(lines: Any) -> None:
    """All fields of the event are attributes of the record; the line says the outcome, the time and the callers."""
    stage = Stage()
    observe(stage.manager)
    stage.log_in()
    ended = stage.fly(callers=3)
    stage.replay()
    (line,) = lines()
    for field in fields(FlightEnded):
        assert getattr(line, f"unexpired_{field.name}") == getattr(ended, field.name)
    assert line.getMessage() == f"flight {ended.flight} of {KEY}: refreshed in {ended.seconds:.3f} s, callers: 3"
    assert line.levelno == logging.INFO


def test_the_level_fits_the_outcome(lines: Any) -> None:
    """A failure is a warning with its reason, breaking down an error; another's token is as good as a refresh."""
    stage = Stage(busy)
    observe(stage.manager)
    stage.log_in()
    stage.try_to()
    (failed,) = lines()
    assert failed.levelno == logging.WARNING
    assert ": failed (unreachable) in " in failed.getMessage()
    other = Stage(key="bob")
    observe(other.manager)
    other.log_in()
    other.adopt_in_flight()
    other.say(FlightEnded("bob", 7, "broken", 1.0, 1), FlightEnded("bob", 8, "unsaved", 1.0, 1))
    levels = {line.unexpired_outcome: line.levelno for line in lines()[1:]}
    assert levels == {"adopted": logging.INFO, "broken": logging.ERROR, "unsaved": logging.ERROR}


def test_a_logger_of_one_s_own_hears_hashed_keys(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the line nor its record has the key, nor the thread's name in it. Two managers of a session: one line."""
    caplog.set_level(logging.INFO)
    stage = Stage(busy)
    again = TokenManager(Server(), store=stage.store, key=KEY)
    log = logging.getLogger("the.program")
    ends = [observe(manager, logger=log, hash_keys=True) for manager in (stage.manager, again)]
    stage.log_in()
    stage.try_to()
    (line,) = [record for record in caplog.records if record.name == "the.program"]
    assert "alice" not in str(vars(line)) + line.getMessage()
    assert len(line.unexpired_key) == 16  # type: ignore[attr-defined]
    log.setLevel(logging.ERROR)
    stage.try_to()
    log.setLevel(logging.NOTSET)
    for end in ends:
        end()
    stage.try_to()
    assert len([record for record in caplog.records if record.name == "the.program"]) == 1


def test_the_managers_of_many_sessions_write_with_their_keys(lines: Any) -> None:
    """One observation is enough for all of them."""
    with TokenManagers(Server(), store=MemoryStore()) as managers:
        observe(managers)
        manager = managers.manager("ada")
        manager.login(FRESH)
        stage = Stage(key="ada")
        stage.manager, stage.store = manager, MemoryStore()
        manager.on(FlightEnded, stage.ends.append)
        manager.refresh()
        stage.end(0)
    assert [line.unexpired_key for line in lines()] == ["ada"]
