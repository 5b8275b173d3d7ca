"""The authorization server in `op.mjs`: its process, a login without a browser, and what it counts."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from unexpired import TokenManager
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import FileStore

HERE = Path(__file__).parent
RESOURCES = ("https://mail.example.com", "https://files.example.com")
"""What tokens can be had for besides the default one (RFC 8707)."""
_PATIENCE = 20.0


class Client(NamedTuple):
    """A client that is registered at the server."""

    client_id: str
    client_secret: str | None = None

    @property
    def basic(self) -> tuple[str, str] | None:
        """For ``auth=``: the confidential client's ``client_secret_basic``."""
        return None if self.client_secret is None else (self.client_id, self.client_secret)


PUBLIC, CONFIDENTIAL = Client("public"), Client("conf", "secret")


class Counts(NamedTuple):
    """What the server has seen since `Provider.zero`: refresh token requests first, calls of its API last."""

    redeemed: int
    refused: int
    grants_revoked: int
    at_once: int
    served: int
    rejected: int


@dataclass(frozen=True)
class Provider:
    """A running server, as the tests speak to it."""

    issuer: str
    redirect_uri: str
    pid: int
    http: httpx2.Client

    def login(self, client: Client, who: str) -> dict[str, Any]:
        """The token answer of an authorization code login with PKCE (RFC 6749 §4.1, RFC 7636)."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client.client_id,
            "response_type": "code",
            "redirect_uri": self.redirect_uri,
            "scope": "openid offline_access",
            "prompt": "consent",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "login_hint": who,
            "resource": list(RESOURCES),
        }
        with httpx2.Client(base_url=self.issuer) as browser:
            answer = browser.get("/auth", params=asked)
            while not answer.headers["location"].startswith(self.redirect_uri):
                answer = browser.get(answer.headers["location"])
        code = httpx2.URL(answer.headers["location"]).params["code"]
        form = {"grant_type": "authorization_code", "redirect_uri": self.redirect_uri, "code_verifier": verifier}
        answer = self._post("/token", client, form | {"code": code}).raise_for_status()
        return dict(answer.json())

    def redeem(self, client: Client, refresh_token: str) -> dict[str, Any]:
        """The answer to one refresh by hand (RFC 6749 §6): a token answer or an error."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return dict(self._post("/token", client, form).json())

    def active(self, client: Client, token: str) -> bool:
        """Whether the server still takes this access or refresh token (RFC 7662)."""
        return bool(self.known(client, token)["active"])

    def known(self, client: Client, token: str) -> dict[str, Any]:
        """What the server says of this token (RFC 7662): ``aud`` is the resource that it is for."""
        return dict(self._post("/token/introspection", client, {"token": token}).raise_for_status().json())

    def revoke(self, client: Client, token: str) -> None:
        """Revoke the whole grant of this token (RFC 7009)."""
        self._post("/token/revocation", client, {"token": token}).raise_for_status()

    def end(self, access_token: str) -> None:
        """Make the server forget this access token, and nothing else of its grant."""
        headers = {"Authorization": f"Bearer {access_token}"}
        self.http.post("/test/end", headers=headers).raise_for_status()

    def access_lifetime(self, seconds: int) -> None:
        """How long access tokens live that are issued from now on."""
        self.http.post("/test/access-lifetime", params={"seconds": seconds}).raise_for_status()

    def zero(self) -> None:
        """Count from zero again."""
        self.http.post("/test/counts").raise_for_status()

    def counts(self) -> Counts:
        """What the server has counted."""
        return Counts(**self.http.get("/test/counts").raise_for_status().json())

    def manager(self, client: Client, directory: Path) -> TokenManager:
        """A manager for this server, with its session in *directory*."""
        grant = RefreshTokenGrant(
            f"{self.issuer}/token",
            client_id=client.client_id,
            client_secret=client.client_secret,
            revocation_url=f"{self.issuer}/token/revocation",
        )
        return TokenManager(grant, store=FileStore(directory), key="session")

    def _post(self, path: str, client: Client, form: dict[str, str]) -> httpx2.Response:
        if client.basic is None:
            return self.http.post(path, data=form | {"client_id": client.client_id})
        return self.http.post(path, data=form, auth=client.basic)


def command(directory: Path = HERE) -> list[str]:
    """What starts the server. Raises RuntimeError, in one sentence, when something is missing for that."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("these tests need Node.js: install `node` and `npm`, then run `make test`")
    if not (directory / "node_modules" / "oidc-provider").is_dir():
        raise RuntimeError(f"oidc-provider is not installed: run `make test`, or `npm ci` in {directory}")
    return [node, str(directory / "op.mjs")]


@contextmanager
def running_provider() -> Generator[Provider]:
    """Run the server until the block ends. It ends with this process too, however that ends."""
    child = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout is not None
            ready = next((line for line in child.stdout if line.startswith("{")), None)
            if ready is None:
                raise RuntimeError("the authorization server did not start; what it said is on standard error")
            told = json.loads(ready)
            with httpx2.Client(base_url=told["issuer"]) as http:
                yield Provider(**told, http=http)
        finally:
            try:
                child.communicate("\n", _PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
