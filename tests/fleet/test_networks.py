from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fleet import networks
from tests.fleet.networks import MACHINES, Loopbacks, Machine, Network
from tests.fleet.patience import LONG, wait_until
from tests.fleet.summary import PROPERTY, summary

SOON = 1.0
PROBE = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as one:
        one.sendall(b"here")
        print(one.recv(4).decode())
except OSError:
    print("")
"""


@pytest.fixture(params=["those that fleets have", "loopback"])
def machines(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Each kind of machines that there is here."""
    with ExitStack() as stack:
        if request.param == "loopback":
            yield Loopbacks(stack)
        else:
            yield stack.enter_context(networks.network())


@contextmanager
def echo(host: str) -> Iterator[int]:
    """Something that listens on that address, and repeats what it hears: its port."""
    with socket.create_server((host, 0)) as listener:

        def repeat(one: socket.socket) -> None:
            with suppress(OSError), one:
                one.sendall(one.recv(4))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=repeat, args=listener.accept()[:1], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def reaches(machine: Machine, host: str, port: int, bound: float = LONG) -> bool:
    """Whether a process on that machine has an answer from there."""
    command = [*machine.prefix, sys.executable, "-S", "-c", PROBE, host, str(port), str(bound)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout == "here\n"


def bridges() -> list[str]:
    """What there is of networks of this process."""
    return sorted(place.name for place in Path("/sys/class/net").glob(f"ux{os.getpid()}[a-d]*"))


def test_each_machine_reaches_the_store_and_the_api(machines: Network) -> None:
    """All machines reach what listens for them, each from a network of its own where there are namespaces."""
    assert len(machines.machines) == MACHINES
    with echo(machines.store_host) as store, echo(machines.api_host) as api, echo("127.0.0.1") as private:
        for machine in machines.machines:
            assert reaches(machine, *machine.reach(store))
            assert reaches(machine, machines.api_host, api)
            assert reaches(machine, "127.0.0.1", private, SOON if machine.prefix else LONG) == (not machine.prefix)
        places = {(tuple(machine.prefix), machine.reach(store)) for machine in machines.machines}
        assert len(places) == MACHINES


@pytest.mark.parametrize("silent", [False, True])
def test_a_machine_that_is_cut_off(machines: Network, *, silent: bool) -> None:
    """Only the one that is cut off loses its way, to the store only, until it is mended."""
    alone, other, _ = machines.machines
    with echo(machines.store_host) as store, echo(machines.api_host) as api:
        assert all(reaches(machine, *machine.reach(store)) for machine in machines.machines)
        alone.cut(silent=silent)
        assert not reaches(alone, *alone.reach(store), SOON)
        assert reaches(other, *other.reach(store))
        assert reaches(alone, machines.api_host, api)
        alone.heal()
        wait_until(lambda: reaches(alone, *alone.reach(store), SOON), "the store is reached again")


def test_nothing_is_left_of_a_network() -> None:
    """What was made is gone afterwards, and so is what a run left that was killed."""
    before = bridges()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(LONG)
    left = f"ux{child.pid}as"
    if not networks.forbidden():
        networks._ip("link", "add", left, "type", "bridge")
    with networks.network() as made:
        assert len(bridges()) - len(before) == (2 + 2 * MACHINES if made.machines[0].prefix else 0)
    assert bridges() == before
    assert not Path(f"/sys/class/net/{left}").exists()


def test_without_the_rights_for_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where namespaces are not allowed machines are addresses of loopback, and the reason is told."""

    def refuse(*_: str, **__: object) -> None:
        raise subprocess.CalledProcessError(2, "ip", stderr=b"RTNETLINK answers: Operation not permitted\n")

    monkeypatch.setattr(networks, "_ip", refuse)
    monkeypatch.delenv("UNEXPIRED_FLEET_MACHINES", raising=False)
    with networks.network() as made:
        assert re.fullmatch(r"addresses of loopback \(.*Operation not permitted\)", made.kind)
        assert {tuple(machine.prefix) for machine in made.machines} == {()}
        assert [machine.reach(1)[0] for machine in made.machines] == ["127.0.0.11", "127.0.0.12", "127.0.0.13"]


def test_without_the_program_for_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program fails, in one sentence that says how to get it."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.delenv("UNEXPIRED_FLEET_MACHINES", raising=False)
    with pytest.raises(pytest.fail.Exception, match="make system-packages"):
        networks.forbidden()


def test_the_table() -> None:
    """What tests of one store and shape hand in is one row; without any there is no table."""
    shape = "3 x 3 x 25"
    handed_in = [
        {"store": "redis", "shape": shape, "expiries": 2, "redemptions": 2, "served": 450, "machines": "far"},
        {"store": "redis", "shape": shape, "logout": "1.5 ms", "machines": "far"},
        {"store": "file", "shape": "1 x 8 x 25", "expiries": 2, "redemptions": 2, "served": 400},
    ]
    reports = [SimpleNamespace(user_properties=[(PROPERTY, row), ("other", 1)]) for row in handed_in]
    _, file, redis, *rest = summary({"passed": reports})
    assert file.split() == ["file", "1", "x", "8", "x", "25", "2", "2", "400"]
    assert redis.split() == ["redis", "3", "x", "3", "x", "25", "2", "2", "450", "1.5", "ms"]
    assert rest == ["three machines: far"]
    assert summary({"passed": [SimpleNamespace(user_properties=[])], "failed": reports}) == []
