"""A real PostgreSQL, PgBouncer before it, and a line that can be cut: each in a temporary directory, on a free port."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.stores.ports import free_port

LONG = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "log_min_messages": "fatal",
}


def program(name: str) -> str:
    """The path of one of the server's programs, which Debian keeps off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
    assert found is not None, f"{name} was not found: `make system-packages` installs postgresql and pgbouncer"
    return found


def account() -> str | None:
    """Whom the servers run as: they refuse to be root."""
    if os.getuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that the servers' account can use."""
    place = Path(tempfile.mkdtemp(prefix="unexpired-pg-", dir="/tmp"))
    try:
        if (user := account()) is not None:
            shutil.chown(place, user)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def certificate(place: Path) -> dict[str, str]:
    """Settings for TLS with a certificate of our own for 127.0.0.1, which nobody signed: it is its own root."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    for path, data in (
        (place / "server.crt", made.public_bytes(Encoding.PEM)),
        (place / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        if (user := account()) is not None:
            shutil.chown(path, user)
    return {"ssl": "on", "ssl_cert_file": str(place / "server.crt"), "ssl_key_file": str(place / "server.key")}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until *ready*; fail with the log if the process ends before."""
    until = time.monotonic() + LONG
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)


class PostgresServer:
    """One server, which can be killed and started again on the same data."""

    def __init__(self, place: Path, settings: Mapping[str, str], *, existing: bool = False) -> None:
        self.place = place
        self._settings = {**_SETTINGS, **settings}
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._log = place / "log"
        initdb = [program("initdb"), "-D", str(place / "data"), "-A", "trust", "-U", "unexpired", "-E", "UTF8", "-N"]
        if not existing:
            subprocess.run([*initdb, "--locale=C"], user=account(), check=True, stdout=subprocess.DEVNULL, cwd=place)

    @property
    def url(self) -> str:
        """Its database."""
        return self.at(self.port)

    def at(self, port: int) -> str:
        """Its database, through another port."""
        return f"postgresql://unexpired@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = [program("postgres"), "-D", str(self.place / "data"), "-p", str(self.port), "-k", str(self.place)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, user=account(), stdout=log, stderr=log, cwd=self.place)
        wait_for(self.is_up, self.process, self._log)

    def is_up(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT is what `pg_ctl stop -m immediate` sends, SIGINT the fast and orderly way."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(LONG)
            self.process = None

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Carry out a statement as somebody else."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """A running server with these settings, which is gone afterwards."""
    with directory() as place:
        server = PostgresServer(place, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pgbouncer(server: PostgresServer, database: str = "postgres") -> Iterator[str]:
    """A PgBouncer in transaction mode before *server*: the URL to go through it."""
    with directory() as place:
        port = free_port()
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=unexpired\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nauth_type=any\npool_mode=transaction\n"
            f"unix_socket_dir=\ndefault_pool_size=3\nserver_lifetime=1\nlogfile={place / 'log'}\n"
        )
        with (place / "out").open("ab") as out:
            command = [program("pgbouncer"), str(settings)]
            process = subprocess.Popen(command, user=account(), stdout=out, stderr=out, cwd=place)
        try:
            wait_for(lambda: _listens(port), process, place / "out")
            yield server.at(port).replace("/postgres", f"/{database}")
        finally:
            process.kill()
            process.wait(LONG)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
