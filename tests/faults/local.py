"""The faults of stores in files, in a process of its own: `python -m tests.faults.local <store> <directory>`.

It prints what came of them as JSON. It has to have mounts of its own (`unshare -m`): a disk is filled, and made
read-only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from tests.faults.stage import Place, play
from tests.faults.table import FAULTS
from unexpired.stores import FileStore, Sealed, SQLiteStore, Store
from unexpired.stores.sealed import new_key

HOLDER = """
import fcntl, glob, sqlite3, sys
files = [open(path, "r+") for path in glob.glob(sys.argv[1] + "/**/*.lease", recursive=True)
         + glob.glob(sys.argv[1] + "/**/*.swap", recursive=True)]
for file in files:
    if file.name.endswith(".swap") or sys.argv[2] == "dies":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert file.name.endswith(".lease"), "a flight has its lease, and nobody writes"
for path in glob.glob(sys.argv[1] + "/*.db"):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    database.execute("UPDATE sessions SET record = ''")
print("held", flush=True)
sys.stdin.readline()
"""
WAITS = (
    "unexpired.stores.file._SWAP_WAIT",
    "unexpired.stores._sqlite_talk.BUSY",
    "unexpired.stores._sqlite_database.BUSY",
)


class Disk:
    """A small disk, which can be filled and made read-only, and the files of a store on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._aside = place / "aside"
        self._filler = place / "filler"
        self._holder: subprocess.Popen[bytes] | None = None

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        """Make space again."""
        self._filler.unlink()

    def freeze(self) -> None:
        """Nothing can be opened for writing any more."""
        _mount("--bind", str(self.place), str(self.place))
        _mount("-o", "remount,bind,ro", str(self.place))

    def thaw(self) -> None:
        """It can again."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    def damage(self) -> None:
        """Other content in the place of each session."""
        self._aside.mkdir()
        for path in self._of_sessions():
            path.rename(self._aside / path.name)
            if path.suffix in (".json", ".db"):
                path.touch(mode=0o600)
                path.write_bytes(b"no session " * 500)

    def repair(self) -> None:
        """All as it was, from a copy."""
        for path in self._of_sessions():
            path.unlink()
        for path in self._aside.iterdir():
            path.rename(self.place / path.name)
        self._aside.rmdir()

    def _of_sessions(self) -> list[Path]:
        return [path for suffix in (".json", ".db", ".db-wal", ".db-shm") for path in self.place.glob(f"*{suffix}")]

    def lock(self, how: str = "stays") -> None:
        """Another program takes all locks that a write needs; one that is to die those of free leases, too."""
        self._holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.place), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"held\n"

    def kill(self) -> None:
        """It is killed, and frees nothing by itself."""
        holder, self._holder = self._holder, None
        assert holder is not None
        holder.kill()
        holder.communicate()


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@contextmanager
def disk(place: Path) -> Iterator[Disk]:
    """A disk of a megabyte, mounted there."""
    place.mkdir(mode=0o700)
    _mount("-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place))
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place)


def made(fault: str, disk: Disk) -> tuple[Callable[[], object], Callable[[], object]]:
    """What brings the fault about, and what ends it."""

    def hold_and_die() -> None:
        disk.lock("dies")
        disk.kill()

    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "read-only": (disk.freeze, disk.thaw),
        "full": (disk.fill, disk.free),
        "damaged": (disk.damage, disk.repair),
        "locked": (disk.lock, disk.kill),
        "holder dies": (hold_and_die, bool),
    }
    return ways[fault]


def opened(store: str, place: Path) -> tuple[Store, Store]:
    """The store as two processes have it."""
    if store == "SQLiteStore":
        return SQLiteStore(place / "sessions.db"), SQLiteStore(place / "sessions.db")
    if store == "Sealed":
        key = new_key()
        return Sealed(FileStore(place), key), Sealed(FileStore(place), key)
    return FileStore(place), FileStore(place)


def main(store: str, directory: str) -> None:
    """Play all faults of one store."""
    found = {}
    for fault in FAULTS[store]:
        with disk(Path(directory) / fault) as one:
            near, far = opened(store, one.place)
            # Who waits for another program's lock waits for 10 s.
            waits = [mock.patch(name, 0.3) for name in WAITS if fault == "locked"]
            for wait in waits:
                wait.start()
            with closing(near), closing(far):
                cells = play(Place(near, far, *made(fault, one), deadline=10.0))
            for wait in waits:
                wait.stop()
        found[fault] = {row: asdict(cell) for row, cell in cells.items()}
    print(json.dumps(found))  # noqa: T201 - how it speaks


if __name__ == "__main__":
    os.umask(0o077)
    main(sys.argv[1], sys.argv[2])
