"""The settings and the verbs of both clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack

import httpx2

from unexpired._core.scheme import Scheme
from unexpired._engine.arguments import check_callable
from unexpired.api._answers import Envelope
from unexpired.api._calls import Calls, Encoding, Options
from unexpired.api._endings import Endings
from unexpired.api._loading import Loading
from unexpired.clients._exchange import check_manager, chosen_scheme, kind_of, origin
from unexpired.errors import ConfigurationError, LoginRequired
from unexpired.manager import TokenManager

__all__ = ["TROUBLE", "Client", "Settings", "addressed"]

C = TypeVar("C")
TROUBLE = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)


class Settings(TypedDict, total=False):
    """What both clients take; see `ApiClient`."""

    scheme: Scheme | None
    headers: Mapping[str, str] | None
    timeout: float | None
    encoding: Encoding
    envelope: Envelope | None
    unwrap: bool
    on_loading: Callable[[int], object] | None
    on_login_required: Callable[[LoginRequired], Any] | None
    clear_user: Callable[[], Any] | None


class Client(ABC, Generic[C]):
    """The settings and the verbs, which are the same for both clients."""

    _may_await: ClassVar[bool] = False

    def __init__(self, base_url: str, manager: TokenManager, settings: Settings) -> None:
        if unknown := settings.keys() - Settings.__optional_keys__:
            known = ", ".join(sorted(Settings.__optional_keys__))
            raise TypeError(
                f"{type(self).__name__} takes no {min(unknown)!r}, but base_url, manager, transport, {known}"
            )
        check_manager(manager)
        _check(settings, asynchronous=self._may_await)
        self._scheme = _at_home(chosen_scheme(settings.get("scheme")), base_url)
        self._manager = manager
        self._calls = Calls(
            envelope=settings.get("envelope") or Envelope.of(self._scheme),
            encoding=settings.get("encoding", "json"),
            unwrap=settings.get("unwrap", False),
        )
        self._loading = Loading(settings.get("on_loading"))
        self._endings = Endings(manager, settings.get("clear_user"), settings.get("on_login_required"))
        self._http_settings: dict[str, Any] = {
            "base_url": base_url,
            "headers": settings.get("headers"),
            "timeout": settings.get("timeout", 30.0),
            "follow_redirects": True,
        }

    @abstractmethod
    def request(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> C:
        """Make a call and return the body of its answer (the envelope's data with *unwrap*).

        Raises ApiError (*code* is the business code, the HTTP status, or -1 without an answer), LoginRequired when
        the login is over, and what `TokenManager.token` raises besides.
        """

    def get(self, path: str, **options: Unpack[Options]) -> C:
        """GET; see `request`."""
        return self.request("GET", path, None, **options)

    def post(self, path: str, body: Any = None, **options: Unpack[Options]) -> C:
        """POST *body* as JSON or as a form; see `request`."""
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Unpack[Options]) -> C:
        """PUT; see `post`."""
        return self.request("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Unpack[Options]) -> C:
        """PATCH; see `post`."""
        return self.request("PATCH", path, body, **options)

    def delete(self, path: str, body: Any = None, **options: Unpack[Options]) -> C:
        """DELETE; see `post`."""
        return self.request("DELETE", path, body, **options)

    def loading(self, text: str = "Loading …") -> AbstractContextManager[None]:
        """Show a spinner on the terminal while calls are under way, until the ``with`` block ends (needs rich)."""
        return self._loading.spinner(text)

    def login_page(self) -> AbstractContextManager[None]:
        """Inside the ``with`` block nothing is refreshed, and a refused call raises LoginRequired at once."""
        return self._manager.login_page()


def _check(settings: Settings, *, asynchronous: bool) -> None:
    """Refuse what could only fail, or be silently ignored, once it is needed."""
    given: Mapping[str, object] = {**settings}
    envelope = given.get("envelope")
    if envelope is not None and not isinstance(envelope, Envelope):
        raise ConfigurationError(f"envelope must be an Envelope, or None, not {kind_of(envelope)}")
    for name in ("on_loading", "on_login_required", "clear_user"):
        hook = given.get(name)
        if hook is None:
            continue
        if not asynchronous or name == "on_loading":
            check_callable(name, hook)
        elif not callable(hook):
            raise ConfigurationError(f"{name} must be a function, not {kind_of(hook)}")


def _at_home(scheme: Scheme, base_url: str) -> Scheme:
    """The scheme for the API's own origin, unless it has a list: a link in an answer may lead anywhere."""
    url = httpx2.URL(base_url)
    if base_url and (url.scheme not in ("http", "https") or not url.host or url.query or url.fragment):
        raise ConfigurationError("base_url must be an absolute http or https URL without a query, or left out")
    if not base_url or scheme.origins is not None:
        return scheme
    return scheme.limited_to(origin(url.scheme, url.host, url.port))


def addressed(path: str, arguments: dict[str, Any]) -> str | httpx2.URL:
    """*path* with the parameters of the call added: httpx2 itself would drop those that it has already."""
    if "?" in path and "params" in arguments:
        return httpx2.URL(path).copy_merge_params(arguments.pop("params"))
    return path
