"""Three machines on one: network namespaces with bridges between them, or addresses of loopback where those may not be.

Each machine reaches the API, with its authorization server, over one network and the store over another, which can be
cut for one machine alone.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from tests.fleet.patience import LONG, wait_until
from tests.stores.proxy import Proxy

MACHINES = 3
_LOOPBACK = "127.0.0.1"
# Set aside for tests of networks (RFC 2544): nobody's own network is there.
_RANGE = ipaddress.ip_network("198.18.0.0/15")


class Machine(Protocol):
    """One of the machines."""

    prefix: Sequence[str]
    """What is put before a command that is to run on it."""

    def reach(self, port: int) -> tuple[str, int]:
        """Where it finds what listens on *port* of the store's machine."""
        ...

    def cut(self, *, silent: bool) -> None:
        """Take away its way to the store: its own link is down, or, *silent*, what it sends is lost."""
        ...

    def heal(self) -> None:
        """All is well again."""
        ...


class Network(Protocol):
    """Machines, and the addresses at which servers listen for them."""

    kind: str
    api_host: str
    store_host: str

    @property
    def machines(self) -> Sequence[Machine]:
        """All of them."""
        ...


class Namespace:
    """A machine that is a network namespace of its own, as long as a process is in it."""

    def __init__(self, number: int, near: dict[str, ipaddress.IPv4Interface], mine: str, stack: ExitStack) -> None:
        command = ["unshare", "--net", "--", "cat"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        stack.callback(self._end)
        place = f"/proc/{self._holder.pid}/ns/net"
        self.prefix: Sequence[str] = ("nsenter", f"--net={place}", "--")
        self._store_host = str(near["store"].ip)
        here = os.readlink("/proc/self/ns/net")

        def is_apart() -> bool:
            if (code := self._holder.poll()) is not None:
                raise subprocess.CalledProcessError(code, command, stderr=b"unshare was refused")
            with suppress(OSError):
                return os.readlink(place) != here
            return False

        wait_until(is_apart, "a namespace of its own")
        _ip("link", "set", "lo", "up", within=self.prefix)
        for name, bridge in near.items():
            end = f"{mine}{name[0]}{number}"
            _ip("link", "add", "name", end, "type", "veth", "peer", "name", name, "netns", str(self._holder.pid))
            stack.callback(_ip, "link", "del", end)
            _ip("link", "set", end, "master", f"{mine}{name[0]}", "up")
            _ip("addr", "add", f"{bridge.ip + number}/{bridge.network.prefixlen}", "dev", name, within=self.prefix)
            _ip("link", "set", name, "up", within=self.prefix)
        self._far_end = f"{mine}s{number}"

    def reach(self, port: int) -> tuple[str, int]:
        """The same for all: the address of the bridge."""
        return self._store_host, port

    def cut(self, *, silent: bool) -> None:
        """Its own end of the cable goes down, or, *silent*, the far one."""
        if silent:
            _ip("link", "set", self._far_end, "down")
        else:
            _ip("link", "set", "store", "down", within=self.prefix)

    def heal(self) -> None:
        """Both ends are up."""
        _ip("link", "set", self._far_end, "up")
        _ip("link", "set", "store", "up", within=self.prefix)

    def _end(self) -> None:
        # It ends by itself with us, however that comes.
        self._holder.communicate(timeout=LONG)


class Namespaces:
    """Machines that are network namespaces, on two bridges. Needs the rights of root."""

    kind = "network namespaces"

    def __init__(self, stack: ExitStack) -> None:
        _clear_away()
        number = next(one for one in range(4) if not Path(f"/sys/class/net/{_mine(one)}s").exists())
        block = ipaddress.IPv4Address(int(_RANGE.network_address) + (os.getpid() % 1024 * 4 + number) * 32)
        near: dict[str, ipaddress.IPv4Interface] = {}
        for place, name in enumerate(("store", "api")):
            near[name] = ipaddress.IPv4Interface(f"{block + 16 * place + 1}/28")
            bridge = f"{_mine(number)}{name[0]}"
            _ip("link", "add", bridge, "type", "bridge")
            stack.callback(_ip, "link", "del", bridge)
            _ip("addr", "add", str(near[name]), "dev", bridge)
            _ip("link", "set", bridge, "up")
        self.api_host, self.store_host = str(near["api"].ip), str(near["store"].ip)
        self.machines = [Namespace(one, near, _mine(number), stack) for one in range(1, MACHINES + 1)]


class _Relay(Proxy):
    """A way through to a server on an address of loopback."""

    def __init__(self, host: str, to: int) -> None:
        self._to = to
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = self._over = False
        threading.Thread(target=self._accept, daemon=True).start()


class Loopback:
    """A machine that is an address of loopback, 127.0.0.11 and on, with relays to the store."""

    def __init__(self, number: int, stack: ExitStack) -> None:
        self.prefix: Sequence[str] = ()
        self._host = f"127.0.0.{10 + number}"
        self._stack = stack
        self._relays: dict[int, _Relay] = {}

    def reach(self, port: int) -> tuple[str, int]:
        """A relay at its own address."""
        if port not in self._relays:
            relay = self._relays[port] = _Relay(self._host, port)
            self._stack.callback(relay.close)
        return self._host, self._relays[port].port

    def cut(self, *, silent: bool) -> None:
        """Its relays end all connections, or, *silent*, pass nothing on."""
        for relay in self._relays.values():
            (relay.freeze if silent else relay.cut)()

    def heal(self) -> None:
        """Its relays work again."""
        for relay in self._relays.values():
            relay.heal()


class Loopbacks:
    """Machines that are addresses of loopback: what there is without the rights of root."""

    def __init__(self, stack: ExitStack, why: str = "") -> None:
        self.kind = f"addresses of loopback{f' ({why})' if why else ''}"
        self.api_host = self.store_host = _LOOPBACK
        self.machines = [Loopback(number, stack) for number in range(1, MACHINES + 1)]


def forbidden() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.environ.get("UNEXPIRED_FLEET_MACHINES") == "loopback":
        return "as UNEXPIRED_FLEET_MACHINES wants it"
    try:
        with ExitStack() as stack:
            Namespaces(stack)
    except subprocess.CalledProcessError as error:
        said: list[str] = error.stderr.decode().strip().splitlines()
        return f"no network namespaces: {said[-1] if said else 'not permitted'}"
    return ""


@contextmanager
def network() -> Iterator[Network]:
    """Namespaces where they may be, else addresses of loopback."""
    why = forbidden()
    with ExitStack() as stack:
        found: Network = Loopbacks(stack, why) if why else Namespaces(stack)
        yield found


def _mine(number: int) -> str:
    """How the names of a network of this process begin. There is room for 15 letters."""
    return f"ux{os.getpid()}{'abcd'[number]}"


def _ip(*arguments: str, within: Sequence[str] = ()) -> None:
    program = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.fail("these tests need ip, which `make system-packages` installs (iproute2)", pytrace=False)
    subprocess.run([*within, program, *arguments], check=True, capture_output=True, timeout=LONG)


def _clear_away() -> None:
    """Remove the bridges of runs that were killed; all else of theirs has ended with its processes."""
    for place in Path("/sys/class/net").glob("ux*"):
        found = re.fullmatch(r"ux(\d+)[a-d][sa]", place.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            # Another run may be about it, too.
            with suppress(subprocess.CalledProcessError):
                _ip("link", "del", place.name)
