from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.staging import Server, manager_for
from unexpired import ConfigurationError, Session, Token, TokenManager, seed_from_environ, seed_from_file
from unexpired.events import LoggedIn
from unexpired.seeds import fingerprint
from unexpired.stores import MemoryStore


def test_a_session_starts_from_a_file(tmp_path: Path) -> None:
    """The JSON of a token answer is a login."""
    path = tmp_path / "token.json"
    path.write_text(json.dumps({"access_token": "from the file", "expires_in": 60}))
    manager = manager_for(Server(), seed_from_file(path))
    assert manager.token().access_token == "from the file"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("secret-7", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["secret-7"]', "is not a JSON object"),
        ('{"token": "secret-7"}', "is not a JSON object with an access_token or refresh_token"),
        ('{"access_token": "", "refresh_token": null}', "is not a JSON object with an access_token"),
        (None, "cannot read a token"),
    ],
    ids=["text", "deep", "list", "other names", "empty", "missing"],
)
def test_a_file_that_is_no_seed(content: str | None, why: str, tmp_path: Path) -> None:
    """ConfigurationError that names the file and the reason, with no word of its content."""
    path = tmp_path / "token.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=why) as error:
        seed_from_file(path)
    assert str(path) in str(error.value)
    assert "secret-7" not in str(error.value)


def test_a_session_starts_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables with the prefix are the fields of a token answer; empty ones do not count."""
    monkeypatch.setenv("CRM_REFRESH_TOKEN", "refresh 0")
    monkeypatch.setenv("CRM_ACCESS_TOKEN", "")
    manager = manager_for(Server(), seed_from_environ("CRM_"))
    assert manager.token().access_token == "access 1"


def test_an_environment_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """ConfigurationError that names the variables."""
    monkeypatch.setenv("UNEXPIRED_SCOPE", "all")
    with pytest.raises(ConfigurationError, match="neither UNEXPIRED_ACCESS_TOKEN nor UNEXPIRED_REFRESH_TOKEN"):
        seed_from_environ()


def test_a_program_may_seed_at_every_start() -> None:
    """The seed a session began with changes nothing later, nor does a new manager; another seed is a new login."""
    store, calls, seed = MemoryStore(), [], {"access_token": "AT", "refresh_token": "RT", "expires_in": -1}

    def grant(session: Session) -> dict[str, object]:
        calls.append(session.refresh_token)
        return {"access_token": f"AT-{len(calls)}", "refresh_token": f"RT-{len(calls)}", "expires_in": 300}

    def start() -> tuple[TokenManager, list[LoggedIn]]:
        manager, begun = TokenManager(grant, store=store), list[LoggedIn]()
        manager.on(LoggedIn, begun.append)
        manager.seed(seed)
        assert manager.token().access_token == "AT-1"
        return manager, begun

    assert [len(start()[1]) for _ in range(3)] == [1, 0, 0]
    assert calls == ["RT"]
    manager, _ = start()
    manager.seed({"refresh_token": "RT-other"})
    assert manager.token().access_token == "AT-2"
    manager.seed({"refresh_token": "RT-other"})
    assert manager.token().access_token == "AT-2"
    assert calls == ["RT", "RT-other"]


def test_a_fingerprint_tells_seeds_apart_and_shows_nothing() -> None:
    """Tokens, refresh tokens and their order count; odd characters do no harm."""
    seeds: list[Token | str] = [
        Token("a"),
        Token("b"),
        Token("a", refresh_token="b"),
        Token("b", refresh_token="a"),
        "a",
        "\ud800",
    ]
    found = [fingerprint(seed) for seed in seeds]
    assert len(set(found)) == len(seeds)
    assert {len(one) for one in found} == {32}
