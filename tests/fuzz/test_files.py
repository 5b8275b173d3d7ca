from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.harness import EPOCH, KEY, intent, session, token
from tests.fuzz.targets import check_record, check_session
from tests.fuzz.values import damaged, jsons, nested, sessions
from unexpired import TokenManager
from unexpired._core.record import decode, encode
from unexpired._core.session import Failure, Session
from unexpired._core.token import Token
from unexpired.errors import StoreError, UnexpiredError
from unexpired.stores import FileStore

FULL = session(
    token(scope="read", id_token="e30.eyJzdWIiOiJhIn0.", extra={"shop": [7, {"a": None}]}),
    token("AT-a", resource="https://a", expires_at=None, lifetime=None),
    intent=intent(),
    failure=Failure("unexplained", "HTTP 400", EPOCH, EPOCH + 1.0, 4, 2, EPOCH - 60.0),
    seeds=("f" * 16,),
)
WHOLE = encode(FULL)
GOOD = {"access_token": "AT-2", "refresh_token": "RT-2", "expires_in": 300}


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each member of a document."""
    members = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in members:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, name))


PLACES = list(_places(json.loads(WHOLE)))


def _with(path: tuple[Any, ...], value: Any, how: str) -> bytes:
    """The good record with one member replaced, missing, or said twice."""
    document = json.loads(WHOLE)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    if how == "missing":
        del inner[path[-1]]
    elif how == "twice" and isinstance(inner, dict):
        first = json.dumps({path[-1]: value})[1:-1]
        inner["\x00here"] = 0
        return json.dumps(document).replace('"\\u0000here": 0', first).encode()
    else:
        inner[path[-1]] = value
    return json.dumps(document).encode()


_changed = st.builds(_with, st.sampled_from(PLACES), jsons, st.sampled_from(["wrong", "missing", "twice"]))
_deep = st.builds(lambda inner: WHOLE[:-1] + b',"deep":' + inner.encode() + b"}", nested)
RECORDS = _changed | damaged(st.just(WHOLE)) | _deep | st.binary(max_size=40) | jsons.map(json.dumps).map(str.encode)


@given(sessions())
def test_every_session_comes_back(one: Session) -> None:
    """What is stored is read again, value for value, whatever the texts and numbers in it."""
    check_session(one)
    again = decode(encode(one), KEY, "here")
    assert again.refresh_token == one.refresh_token
    assert again.same_version(one)


@given(RECORDS)
@settings(max_examples=200)
@example(WHOLE)
@example(WHOLE.replace(b'"attempt":1', b'"attempt":' + b"9" * 4000))
@example(WHOLE.replace(b'"version":1', b'"version":' + b"9" * 4299))
@example(WHOLE.replace(b'"count":4', b'"count":' + b"9" * 4000))
@example(WHOLE.replace(b"1000001.0", b"1e308"))
@example(WHOLE.replace(b"1000001.0", b"NaN"))
@example(WHOLE.replace(b"1000001.0", b"1" + b"0" * 400))
@example(WHOLE.replace(b'"key":"alice"', b'"key":"bob"'))
@example(WHOLE + b"\x00")
@example(WHOLE.decode().encode("utf-16"))
@example(b"\xef\xbb\xbf" + WHOLE)
def test_any_record_is_a_session_or_a_store_error(data: bytes) -> None:
    """A record that was read can be stored again and used by flights; any other is a StoreError."""
    check_record(data)


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_record_cut_short_is_never_a_session(length: int) -> None:
    """The beginning of a record, however long, is not taken for one."""
    assert check_record(WHOLE[:length]) is None


class Disk:
    """A file store with one session, whose file can be spoiled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = FileStore(directory)
        self.numbers = itertools.count(2)
        assert self.store.swap(KEY, None, FULL)
        self.path = Path(self.store._path(KEY))

    def manager(self) -> TokenManager:
        """A manager whose server rotates."""

        def refresh(_: Session) -> dict[str, Any]:
            number = next(self.numbers)
            return {"access_token": f"AT-{number}", "refresh_token": f"RT-{number}", "expires_in": 300}

        return TokenManager(refresh, store=self.store, key=KEY, patience=0.0, refresh_ahead=0.0)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Disk]:
    """Give a new store for each example: managers of one store remember what they have seen."""
    directory, numbers = tmp_path_factory.mktemp("stores"), itertools.count()
    return lambda: Disk(directory / str(next(numbers)))


@given(data=RECORDS)
@settings(max_examples=40)
def test_a_file_with_anything_in_it_loses_nothing(disks: Callable[[], Disk], data: bytes) -> None:
    """A file is a session or stays byte for byte; a new login sets it aside whole, and is served."""
    disk = disks()
    disk.path.write_bytes(data)
    with disk.manager() as manager:
        try:
            found = disk.store.load(KEY)
        except StoreError:
            with pytest.raises(StoreError):
                manager.token()
            with pytest.raises(StoreError):
                disk.store.swap(KEY, None, FULL)
            assert disk.path.read_bytes() == data
            manager.login(GOOD)
            (kept,) = disk.directory.glob("*.set-aside-*")
            assert kept.read_bytes() == data
            assert manager.token().access_token == "AT-2"
            return
        assert found is not None
        _use(manager, disk, found)


def _use(manager: TokenManager, disk: Disk, found: Session) -> None:
    """Ask for a token: it is the stored one or a stored newer one, or a typed error and the session is still there."""
    try:
        got = manager.token()
    except UnexpiredError:
        after = disk.store.load(KEY)
        assert after is not None
        assert after.refresh_token == found.refresh_token
        assert after.login == found.login
    else:
        after = disk.store.load(KEY)
        assert after is not None
        assert after.tokens[None].access_token == got.access_token
        assert after.version >= found.version


@given(made=sessions())
@settings(max_examples=25)
def test_a_file_gives_back_what_was_stored(disks: Callable[[], Disk], made: Session) -> None:
    """What a swap has stored is what another store object reads."""
    disk = disks()
    assert disk.store.swap(KEY, FULL, made)
    again = FileStore(disk.directory).load(KEY)
    assert again is not None
    assert encode(again) == encode(made)


def test_a_number_of_any_size_is_stored_or_refused() -> None:
    """A token made by hand with numbers that JSON cannot hold is refused with a StoreError, and nothing is written."""
    for odd in (10**5000, float("nan"), float("inf")):
        one = Session.begin(KEY, "login", Token("AT", expires_at=odd))
        with pytest.raises(StoreError):
            encode(one)
