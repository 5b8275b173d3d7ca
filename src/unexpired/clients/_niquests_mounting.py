"""What the adapters that are mounted on sessions of niquests share."""

from __future__ import annotations

import logging
from typing import Any

from niquests import PreparedRequest
from niquests.adapters import AsyncBaseAdapter, BaseAdapter

from unexpired._core.scheme import Answer, Scheme, Verdict
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, url_origin
from unexpired.clients._niquests_calls import is_task, notes_of
from unexpired.clients._urllib3_quiet import _Quiet
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

__all__ = ["OPTIONS", "Mounted"]

OPTIONS = "unexpired.options"
"""What a request says of its token: whether it carries one, and whose."""
_ASKED = "unexpired.asked"
_LOGGERS = ("connectionpool", "_async.connectionpool", "response", "util.retry", "poolmanager", "_async.poolmanager")
_quiet = _Quiet()
_SETTINGS = ("stream", "timeout", "verify", "cert", "proxies", "on_post_connection")


class Mounted:
    """What an adapter does before it sends, and what sends for it."""

    _calls: Calls

    def _mount(self, manager: TokenManager, scheme: Scheme | None, adapter: Any, kind: type[Any], other: str) -> Any:
        """Check what an adapter is made of: what sends for it must be of *kind*; the others are for *other*."""
        self._calls = Calls(manager, scheme)
        if not isinstance(adapter, kind):
            hint = f" ({other} takes those)" if isinstance(adapter, BaseAdapter | AsyncBaseAdapter) else ""
            message = f"adapter must be a niquests.adapters.{kind.__name__}, not {kind_of(adapter)}{hint}"
            raise ConfigurationError(message)
        for status in getattr(getattr(adapter, "max_retries", None), "status_forcelist", None) or ():
            if self._calls.scheme.judge(Answer(status, {})).verdict is not Verdict.ACCEPTED:
                raise ConfigurationError(
                    f"the adapter's own retries would send a refused token again: take {status} out of status_forcelist"
                )
        if self._calls.scheme.places[1]:
            _silence()
        return adapter

    def _settings(self, args: tuple[Any, ...], settings: dict[str, Any], *, tasks: bool) -> dict[str, Any]:
        """How a session wants a request to be sent. A session of the other kind is told which adapter it needs."""
        if args:
            settings |= zip(_SETTINGS, args, strict=False)
        hook = settings.get("on_post_connection")
        if hook is not None and is_task(hook) is not tasks:
            raise ConfigurationError(
                "a Session needs a TokenAdapter: it does not await an AsyncTokenAdapter"
                if tasks
                else "an AsyncSession needs an AsyncTokenAdapter: a TokenAdapter would block its event loop"
            )
        return settings

    def _resource(self, request: Any) -> tuple[bool, str | None]:
        """Whether *request* is to carry a token, and whose."""
        if not isinstance(request, PreparedRequest):
            raise ConfigurationError(f"this adapter takes requests of niquests, not {kind_of(request)}")
        notes, url = notes_of(request), str(request.url)
        asked = notes.setdefault(_ASKED, url)
        authenticated, resource = notes.get(OPTIONS, (True, None))
        if asked is not url or self._calls.scheme.origins is not None:
            authenticated = authenticated and self._calls.carries(url_origin(url), url_origin(asked))
        return authenticated, resource


def _silence() -> None:
    """From now on urllib3-future logs no token of a request that wears a `Disguise`."""
    for package in ("urllib3", "urllib3_future"):
        for name in _LOGGERS:
            logging.getLogger(f"{package}.{name}").addFilter(_quiet)
