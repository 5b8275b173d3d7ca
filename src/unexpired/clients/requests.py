"""requests: `TokenAuth` for ``auth=``, and `TokenAdapter` for what a hook cannot do.

`TokenAuth` carries schemes that put the token into the ``Authorization`` header, business codes in bodies included.
Tokens in headers of their own, in the query or in cookies need a `TokenAdapter`, which is mounted: a session would
carry such a header along redirects, and show such a query in its history.

A single request says with ``auth=TokenOptions(authenticated=False)`` that it carries no token, and to a mounted adapter
with ``auth=TokenOptions(resource=…)`` whose token it wants (RFC 8707). Everything here is safe for any number of
threads. Needs the extra ``unexpired[requests]``.
"""

from __future__ import annotations

from typing import Any, cast

from unexpired._core.scheme import Scheme
from unexpired.clients._bodies import SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._dressing import header_scheme
from unexpired.clients._exchange import kind_of, not_installed, url_origin
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

try:
    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter, HTTPAdapter
    from requests.auth import AuthBase
except ModuleNotFoundError as error:
    raise not_installed("requests", error) from None

from unexpired.clients._requests_calls import Carried, Sending, notes_of

__all__ = ["BodyFactory", "TokenAdapter", "TokenAuth", "TokenOptions"]

_OPTIONS, _ASKED = "unexpired.options", "unexpired.asked"


class BodyFactory(SyncFactory):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``session.post(url, data=BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed.
    """


class TokenOptions(AuthBase):
    """``auth=TokenOptions(authenticated=False)``: this request carries no token.

    ``TokenOptions(resource="https://files.example.com")`` asks a `TokenAdapter` for that resource's token (RFC 8707);
    where a `TokenAuth` is in use, give the request another one: ``auth=TokenAuth(manager, resource=…)``.
    """

    def __init__(self, *, authenticated: bool = True, resource: str | None = None) -> None:
        self.authenticated = authenticated
        self.resource = resource

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Note it on the request, from where redirects take it along."""
        notes_of(r)[_OPTIONS] = self
        return r


class TokenAuth(AuthBase):
    """``session.auth = TokenAuth(manager)``: the token on every request, and a silent replay when it is refused.

    The refused answer stands in ``response.history``, as with requests' own digest authentication. requests keeps
    ``Authorization`` when ``http`` redirects to ``https`` on the same host; where that is too much, mount a
    `TokenAdapter`. *resource*: whose token it is (RFC 8707). Raises ConfigurationError for a scheme that it cannot
    carry safely; requests raise what `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent
    again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, resource: str | None = None) -> None:
        self._calls = Calls(manager, header_scheme(scheme, "TokenAuth", "TokenAdapter"))
        self._resource = resource

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Put the token on, and listen for its refusal."""
        calls, manager = self._calls, self._calls.manager
        if calls.scheme.origins is not None and not calls.scheme.allows(url_origin(str(r.url))):
            return r
        token = manager.warm(self._resource) or manager.token(self._resource)
        carried = Carried(calls.scheme, r, token, self._resource)
        carried.dress()

        def answered(response: Response, **settings: Any) -> Response:
            if response.request is not r and not carried.reached(response.request):
                return response
            carried.response, carried.settings = response, settings
            calls.go_on(carried, carried.token, response.status_code)
            return carried.response

        r.register_hook("response", answered)
        return r


class TokenAdapter(BaseAdapter):
    """``session.mount("https://api.example.com", TokenAdapter(manager, scheme))``: any scheme, on every hop.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to another
    one; the session's requests, hooks and history never hold it. *adapter* is what sends, with its retries and pools
    (default: a new `requests.adapters.HTTPAdapter`). Requests raise what `TokenManager.token` raises, and
    ReplayRefused. Raises ConfigurationError for an argument of another kind.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, adapter: BaseAdapter | None = None) -> None:
        super().__init__()
        self._calls = Calls(manager, scheme)
        if not isinstance(cast("object", adapter), BaseAdapter | None):
            raise ConfigurationError(f"adapter must be a requests.adapters.BaseAdapter, not {kind_of(adapter)}")
        self._adapter = HTTPAdapter() if adapter is None else adapter

    def send(self, request: PreparedRequest, *args: Any, **settings: Any) -> Response:
        """Send it with a token; again, silently, if the token is refused."""
        notes, url = notes_of(request), str(request.url)
        asked = notes.setdefault(_ASKED, url)
        options = notes.get(_OPTIONS, _DEFAULTS)
        plain = asked is url and self._calls.scheme.origins is None
        if not options.authenticated or not (plain or self._calls.carries(url_origin(url), url_origin(asked))):
            return self._adapter.send(request, *args, **settings)
        sending = Sending(self._calls.scheme, request, options.resource, self._adapter, (args, settings))
        self._calls.run(sending)
        sending.response.request, sending.response.url = request, url
        return sending.response

    def close(self) -> None:
        """Close the adapter that sends. The manager stays open."""
        self._adapter.close()


_DEFAULTS = TokenOptions()
