"""Files that nobody else may read or change: checked when read, replaced as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from contextlib import suppress

from unexpired.errors import StoreError

__all__ = ["check", "create", "file_name", "lock_down", "put_aside", "read", "replace", "trouble"]

# Windows has few of these flags and no owners and mode bits: the user's profile protects the files there.
_POSIX = hasattr(os, "geteuid")
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | _SAFELY | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY

# The coarsest file times in use (FAT) have steps of two seconds.
_COARSEST = 2_000_000_000

_ELSEWHERE = "or name another directory (FileStore(directory) or UNEXPIRED_HOME)"
_NO_RIGHT = f"let this user write there, {_ELSEWHERE}"
_NO_SPACE = f"free some space there, {_ELSEWHERE}"
_NO_LOCKS = f"the file system cannot lock files: {_ELSEWHERE.removeprefix('or ')}"
_LINK = "it is a symbolic link: put the real file or directory in its place"
_ADVICE = {
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.ENOSYS: _NO_LOCKS,
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ELOOP: _LINK,
    errno.EMLINK: _LINK,
}


def trouble(doing: str, path: str, error: OSError, key: str | None) -> StoreError:
    """The StoreError for *error*, met when about to *doing* (a verb) *path*, with what to do about it."""
    why = error.strerror or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, f"check the file system, {_ELSEWHERE}")
    return StoreError(f"cannot {doing} {path}: {why}; {advice}", key=key)


def lock_down(directory: str, key: str, *, create: bool, alone: bool = False) -> None:
    """See that nobody else can change what is in *directory*; with *create*, make it (0700) if it is missing.

    Raises StoreError for a directory that is a symbolic link, belongs to somebody else but root, or can be
    written by others without the sticky bit; with *alone*, in spite of it.
    """
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        if not create:
            return
        found = _make(directory, key)
    except OSError as error:
        raise trouble("look at", directory, error, key) from error
    if stat.S_ISLNK(found.st_mode):
        wrong = f"it is a symbolic link; name the real directory instead: {os.path.realpath(directory)}"
    elif not stat.S_ISDIR(found.st_mode):
        wrong = f"it is not a directory; move it away, {_ELSEWHERE}"
    elif _POSIX and found.st_uid not in (0, os.geteuid()):
        wrong = f"it belongs to another user (uid {found.st_uid}); name a directory of your own"
    elif _POSIX and found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        wrong = f"other users can write in it; run: chmod go-w {directory}"
    elif _POSIX and alone and found.st_mode & 0o022:
        wrong = "other users can put files beside ours there; name one in a directory of your own"
    else:
        return
    raise StoreError(f"cannot keep sessions in {directory}: {wrong}", key=key)


def _make(directory: str, key: str) -> os.stat_result:
    parent = os.path.dirname(directory)
    try:
        if not os.path.isdir(parent):
            _make(parent, key)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        _settle(parent)
        return os.lstat(directory)
    except OSError as error:
        raise trouble("create", directory, error, key) from error


def read(path: str, key: str) -> bytes | None:
    """What is in *path*, None if there is nothing.

    The file that is checked is the one that is read. Raises StoreError for anything but a plain file of
    this user that is closed to all others.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise trouble("open", path, error, key) from error
    try:
        check(os.fstat(descriptor), path, key)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise trouble("read", path, error, key) from error
    finally:
        os.close(descriptor)


def check(found: os.stat_result, path: str, key: str | None) -> None:
    """Raise StoreError unless what was *found* at *path* is a plain file of this user, closed to all others."""
    if not stat.S_ISREG(found.st_mode):
        wrong = "it is not a plain file; move it away"
    elif _POSIX and found.st_uid != os.geteuid():
        wrong = f"it belongs to another user (uid {found.st_uid}); log in as that user, or move it away"
    elif _POSIX and found.st_mode & 0o077:
        wrong = f"other users may have read or changed it; if you trust it, run: chmod 600 {path}"
    else:
        return
    raise StoreError(f"refused to read {path}: {wrong}", key=key)


def create(path: str, key: str) -> None:
    """Make an empty file (0600) at *path* unless there is something already. Raises StoreError."""
    try:
        os.close(os.open(path, _CREATE, 0o600))
        _settle(os.path.dirname(path))
    except FileExistsError:
        return
    except OSError as error:
        raise trouble("create", path, error, key) from error


def file_name(key: str) -> str:
    """A name for any key: readable, short, and different even where the file system ignores case."""
    slug = re.sub(r"[^A-Za-z0-9@._-]+", "-", key)[:40].strip("-.") or "session"
    return f"{slug}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def replace(path: str, data: bytes, key: str) -> None:
    """Put *data* into *path* durably (file and directory synced), 0600 from its first byte, mtime later.

    A reader sees the old file or the new one. Only one caller at a time may do this to one path. A crash
    leaves at most a temporary file, which the next call removes. Raises StoreError; the old file is then
    still in place, unless it was the directory that could not be synced.
    """
    temporary = f"{path}.tmp"
    try:
        try:
            _write(temporary, data, _mtime(path))
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _settle(os.path.dirname(path))
    except OSError as error:
        raise trouble("write", path, error, key) from error


def put_aside(path: str, key: str) -> None:
    """Rename *path* to a name beside it that says when, and is not taken. Raises StoreError."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 1
    while os.path.lexists(aside := f"{path}.set-aside-{moment}-{number}"):
        number += 1
    try:
        os.rename(path, aside)
        _settle(os.path.dirname(path))
    except OSError as error:
        raise trouble("rename", path, error, key) from error


def _write(temporary: str, data: bytes, previous: int) -> None:
    try:
        descriptor = os.open(temporary, _CREATE, 0o600)
    except FileExistsError:
        # Only a writer that died leaves one behind: whoever calls holds the lock.
        os.unlink(temporary)
        descriptor = os.open(temporary, _CREATE, 0o600)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        later = max(time.time_ns(), previous + 1)
        os.utime(temporary, ns=(later, later))
        if os.fstat(descriptor).st_mtime_ns <= previous:
            os.utime(temporary, ns=(previous + _COARSEST, previous + _COARSEST))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _settle(directory: str) -> None:
    """Make a change of names in *directory* durable, where the system can."""
    if not _POSIX:
        return
    descriptor = os.open(directory, os.O_RDONLY | _SAFELY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
