"""Which client asks: client authentication at the token and revocation endpoints (RFC 6749 §2.3)."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from unexpired.testing._config import ServerConfig
from unexpired.testing._exchange import Reply, json_reply

__all__ = ["authenticate", "oauth_error"]


def oauth_error(code: str, *, challenge: bool = False) -> Reply:
    """Word an OAuth error (RFC 6749 §5.2): 401 for `invalid_client`, else 400."""
    headers = [("www-authenticate", 'Basic realm="as"')] if challenge else []
    description = f"the test server says {code}"
    return json_reply(
        {"error": code, "error_description": description}, 401 if code == "invalid_client" else 400, headers
    )


def authenticate(config: ServerConfig, authorization: str | None, parameters: Mapping[str, str]) -> str | Reply:
    """Give the client id that the request proves, or the refusal to answer."""
    credentials: tuple[str, str | None] | None
    if authorization is not None:
        if "client_secret" in parameters:
            return oauth_error("invalid_request")  # one method per request, RFC 6749 §2.3
        credentials = _basic(authorization)
        method = "client_secret_basic"
    else:
        secret = parameters.get("client_secret")
        credentials = (parameters.get("client_id", ""), secret)
        method = "none" if secret is None else "client_secret_post"
    if credentials is None or method not in config.client_auth or not _known(config, *credentials):
        return oauth_error("invalid_client", challenge=authorization is not None)
    return credentials[0]


def _basic(authorization: str) -> tuple[str, str] | None:
    kind, _, text = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # both halves are form-encoded before they are joined, RFC 6749 §2.3.1
    return (unquote_plus(user), unquote_plus(password)) if kind.lower() == "basic" and colon else None


def _known(config: ServerConfig, client_id: str, secret: str | None) -> bool:
    if client_id not in config.clients:
        return False
    registered = config.clients[client_id]
    if registered is None or secret is None:
        return registered is None and not secret
    return hmac.compare_digest(registered.encode(), secret.encode())
