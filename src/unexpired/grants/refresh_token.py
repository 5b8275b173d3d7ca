"""The refresh token grant (RFC 6749 §6) and token revocation (RFC 7009)."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote_plus, urlencode, urlsplit

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, LoginRequired, UnexpiredError
from unexpired.grants._settings import ANSWER_FIELDS, checked_fields, checked_grace
from unexpired.grants.answer import HTTPAnswer, TokenCall, read_token

if TYPE_CHECKING:
    import httpx2

__all__ = ["ClientAuth", "RefreshTokenGrant"]

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]
"""How the client proves who it is, by the names of OpenID Connect Core §9."""

_REVOCATION_TIMEOUT = 5.0
_NOTHING: Mapping[str, Any] = {}
_NO_FIELDS: Mapping[str, str] = {}


class RefreshTokenGrant:
    """Redeems the session's refresh token at *url* (RFC 6749 §6). Thread-safe; `repr` shows no secret.

    * *client_auth* is ``client_secret_basic`` (the default with a secret: RFC 6749 §2.3.1, in a header),
      ``client_secret_post`` (among the parameters) or ``none`` (a public client: only *client_id* is sent).
    * *method* ``GET`` puts all parameters into the query, behind those that *url* has. Otherwise they are the
      body, in *encoding* ``form`` or ``json``.
    * *extra_params* are sent too, and replace a standard parameter of the same name.
    * *response_fields* says where the answer has the fields of RFC 6749 §5.1 when they are not where the RFC
      puts them: ``{"access_token": "data.Token"}``. ``error`` (§5.2) can be mapped too.
    * *resource_param* is what the server calls the parameter that says for what a token is wanted: ``resource``
      (RFC 8707), ``audience``, or ``scope`` (RFC 6749 §6).
    * *revocation_url* is where `revoke` sends the token at logout (RFC 7009).
    * *reuse_grace* is for how many seconds the server lets a spent refresh token be sent again.
    * *http* is a configured client for proxies, private certificate authorities and client certificates. It
      is used as it is, hooks included; only its authentication, redirects and timeouts are not. Give it no
      idle connections (``limits=httpx2.Limits(max_keepalive_connections=0)``): one that the server has
      meanwhile closed looks like a lost answer.

    Raises ConfigurationError for settings that cannot work. Nothing is sent before the first `redeem`.
    """

    spends_refresh_token = True

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None,
        client_secret: str | None = None,
        client_auth: ClientAuth | None = None,
        method: Literal["GET", "POST"] = "POST",
        encoding: Literal["form", "json"] = "form",
        extra_params: Mapping[str, Any] = _NOTHING,
        response_fields: Mapping[str, str] = _NO_FIELDS,
        resource_param: str = "resource",
        revocation_url: str | None = None,
        reuse_grace: float = 0,
        http: httpx2.Client | None = None,
    ) -> None:
        self._endpoint = _endpoint("url", url)
        self._revocation_endpoint = None if revocation_url is None else _endpoint("revocation_url", revocation_url)
        self._client_auth: ClientAuth = client_auth or ("client_secret_basic" if client_secret else "none")
        _one_of("client_auth", self._client_auth, ("client_secret_basic", "client_secret_post", "none"))
        _one_of("method", method, ("GET", "POST"))
        _one_of("encoding", encoding, ("form", "json"))
        if not (isinstance(cast("object", resource_param), str) and resource_param):
            raise ConfigurationError(f"resource_param must be the name of a parameter, not {resource_param!r}")
        if client_secret and not client_id:
            raise ConfigurationError("a client_secret needs a client_id")
        if client_secret and self._client_auth == "none":
            raise ConfigurationError("client_auth 'none' sends no client_secret: leave one of them out")
        if not client_secret and self._client_auth != "none":
            raise ConfigurationError(f"client_auth {self._client_auth!r} needs a client_secret")
        if http is not None:
            from unexpired.grants._http import require_client  # noqa: PLC0415 - as in _ask

            require_client(http)
        self._url = url
        self._revocation_url = revocation_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._method = method
        self._encoding = encoding
        self._extra_params = dict(extra_params)
        self._resource_param = resource_param
        self._fields = checked_fields(response_fields, (*ANSWER_FIELDS, "error"))
        self.reuse_grace: float = checked_grace(reuse_grace)
        self._http = http
        try:
            self._call({})
        except (TypeError, ValueError):
            sendable = False
        else:
            sendable = True
        if not sendable:  # raised here, where no text of the other error comes along
            raise ConfigurationError(f"client_id, client_secret or extra_params cannot be sent as {encoding}")

    def __repr__(self) -> str:
        return f"RefreshTokenGrant({self._endpoint!r}, client_id={self._client_id!r}, {self._client_auth})"

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token:
        """One token request, within *timeout* seconds in all; *resource* is sent as `resource_param` says.

        Raises LoginRequired (``no_refresh_token``) when the session has none, else NotSent, Refused,
        AnswerLost or ConfigurationError.
        """
        if session.refresh_token is None:
            raise LoginRequired(
                f"the session {session.key!r} has no refresh token, so it cannot be renewed: log in again",
                key=session.key,
                reason="no_refresh_token",
            )
        parameters: dict[str, Any] = {"grant_type": "refresh_token", "refresh_token": session.refresh_token}
        if resource is not None:
            parameters[self._resource_param] = resource
        call = self._call(parameters)
        now = time.time()
        answer = self._ask(call, timeout)
        return read_token(answer, endpoint=self._endpoint, now=now, fields=self._fields)

    def revoke(self, session: Session) -> bool:
        """Revoke the refresh token, or where there is none the access tokens (RFC 7009 §2.1), in 5 s.

        Returns whether the server took it. Never raises.
        """
        if self._revocation_url is None or self._revocation_endpoint is None:
            return False
        hint, tokens = "refresh_token", [session.refresh_token] if session.refresh_token else []
        if not tokens:
            hint, tokens = "access_token", [token.access_token for token in session.tokens.values()]
        until = time.monotonic() + _REVOCATION_TIMEOUT
        try:
            return bool(tokens) and all(self._revoked(token, hint, until) for token in tokens)
        except UnexpiredError:
            return False

    def _revoked(self, token: str, hint: str, until: float) -> bool:
        url, endpoint = str(self._revocation_url), str(self._revocation_endpoint)
        parameters, headers = self._authenticated({"token": token, "token_type_hint": hint})
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        call = TokenCall("POST", url, endpoint, headers, urlencode(parameters).encode())
        return self._ask(call, until - time.monotonic()).status == 200

    def _ask(self, call: TokenCall, timeout: float) -> HTTPAnswer:
        from unexpired.grants._http import ask  # noqa: PLC0415 - loads the HTTP client, which only this needs

        return ask(call, http=self._http, timeout=timeout)

    def _call(self, parameters: Mapping[str, Any]) -> TokenCall:
        parameters, headers = self._authenticated(parameters)
        parameters |= self._extra_params
        if self._method == "GET":
            joint = "&" if urlsplit(self._url).query else "?"
            url = f"{self._url.rstrip('?&')}{joint}{urlencode(parameters, doseq=True)}"
            return TokenCall("GET", url, self._endpoint, headers)
        if self._encoding == "json":
            headers["Content-Type"] = "application/json"
            return TokenCall("POST", self._url, self._endpoint, headers, json.dumps(parameters).encode())
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(parameters, doseq=True).encode()
        return TokenCall("POST", self._url, self._endpoint, headers, body)

    def _authenticated(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """*parameters* and headers that say who the client is."""
        headers = {"Accept": "application/json"}
        if self._client_auth == "client_secret_basic":
            pair = f"{quote_plus(str(self._client_id))}:{quote_plus(str(self._client_secret))}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            return dict(parameters), headers
        client = {"client_id": self._client_id, "client_secret": self._client_secret}
        return {**parameters, **{name: value for name, value in client.items() if value}}, headers


def _endpoint(name: str, url: str) -> str:
    """*url* as messages may show it, without its query. Raises ConfigurationError if it cannot be used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        usable = False
    if not usable or any(character <= " " for character in url):
        raise ConfigurationError(f"{name} must be an absolute address that begins with https:// or http://")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigurationError(f"{name} must hold no user name or password: give client_id and client_secret")
    if "#" in url:
        raise ConfigurationError(f"{name} must have no fragment (RFC 6749 §3.2)")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
