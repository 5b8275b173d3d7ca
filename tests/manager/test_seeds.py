from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.staging import Server, manager_for
from unexpired import ConfigurationError, seed_from_environ, seed_from_file


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
        (None, "cannot read a token"),
    ],
    ids=["text", "deep", "list", "missing"],
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
