"""requests: `TokenAuth` for ``auth=``, and `TokenAdapter` for what a hook cannot do.

`TokenAuth` carries schemes that put the token into the ``Authorization`` header, business codes in bodies included.
Tokens in headers of their own, in the query or in cookies need a `TokenAdapter`, which is mounted: a session would
carry such a header along redirects, and show such a query in its history.

A single request says with ``auth=TokenOptions(authenticated=False)`` that it carries no token, and to a mounted adapter
with ``auth=TokenOptions(resource=…)`` whose token it wants (RFC 8707). Everything here is safe for any number of
threads. Needs the extra ``unexpired[requests]``.
"""

from __future__ import annotations

from typing import Any, Never, cast

from unexpired._core.scheme import Answer, Scheme, Verdict
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
    raise not_installed("requests", error, "urllib3") from None

from unexpired.clients._requests_calls import Sending, Watch, notes_of
from unexpired.clients._urllib3_quiet import silence

__all__ = ["BodyFactory", "TokenAdapter", "TokenAuth", "TokenOptions"]

_OPTIONS, _ASKED = "unexpired.options", "unexpired.asked"


class BodyFactory(SyncFactory):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``session.post(url, data=BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed.
    """


class _Local:
    """What is of no use in another process."""

    def __reduce__(self) -> Never:
        made = f"a {type(self).__name__} cannot be pickled or copied"
        raise ConfigurationError(f"{made}: make the session anew in each process, with a manager on the same store")


class TokenOptions(AuthBase):
    """``auth=TokenOptions(authenticated=False)``: this request carries no token.

    ``TokenOptions(resource="https://files.example.com")`` asks a `TokenAdapter` for that resource's token (RFC 8707);
    where a `TokenAuth` is in use, give the request another one: ``auth=TokenAuth(manager, resource=…)``.
    """

    def __init__(self, *, authenticated: bool = True, resource: str | None = None) -> None:
        self.authenticated = authenticated
        self.resource = resource

    def __call__(self, r: PreparedRequest, *_: object) -> PreparedRequest:
        """Note it on the request, from where redirects take it along."""
        notes_of(_own(r, "TokenOptions"))[_OPTIONS] = self
        return r


class TokenAuth(_Local, AuthBase):
    """``session.auth = TokenAuth(manager)``: the token on every request, and a silent replay when it is refused.

    The refused answer stands in ``response.history``, as with requests' own digest authentication. requests keeps
    ``Authorization`` when ``http`` redirects to ``https`` on the same host; where that is too much, mount a
    `TokenAdapter`. *resource*: whose token it is (RFC 8707). Raises ConfigurationError for a scheme that would leak;
    requests raise what `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, resource: str | None = None) -> None:
        self._calls = Calls(manager, header_scheme(scheme, "TokenAuth", "TokenAdapter"))
        self._resource = resource

    def __call__(self, r: PreparedRequest, *_: object) -> PreparedRequest:
        """Put the token on, and listen for its refusal."""
        calls, resource, headers = self._calls, self._resource, _own(r, "TokenAuth").headers
        if calls.scheme.origins is None or calls.scheme.allows(url_origin(str(r.url))):
            token = calls.manager.warm(resource) or calls.manager.token(resource)
            for name, value in calls.scheme.render(token).headers:
                headers[name] = value
            # `register_hook` would first find out whether this can be called.
            r.hooks["response"].append(Watch(calls, r, token, resource))
        return r


class TokenAdapter(_Local, BaseAdapter):
    """``session.mount("https://api.example.com", TokenAdapter(manager, scheme))``: any scheme, on every hop.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to another
    one that this adapter saw begin; the session's requests, hooks and history never hold it. *adapter* is what sends
    (default: a new `requests.adapters.HTTPAdapter`). Requests raise what `TokenManager.token` raises, and
    ReplayRefused. Raises ConfigurationError for an argument of another kind, and for an adapter that would itself try
    a refused token again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, adapter: BaseAdapter | None = None) -> None:
        super().__init__()
        self._calls = Calls(manager, scheme)
        self._adapter = HTTPAdapter() if adapter is None else adapter
        if isinstance(adapter, TokenAdapter) or not isinstance(cast("object", self._adapter), BaseAdapter):
            raise ConfigurationError(
                f"adapter must be the requests.adapters.BaseAdapter that sends, not {kind_of(adapter)}"
            )
        for status in getattr(getattr(adapter, "max_retries", None), "status_forcelist", None) or ():
            if self._calls.scheme.judge(Answer(status, {})).verdict is not Verdict.ACCEPTED:
                raise ConfigurationError(
                    f"the adapter's own retries would send a refused token again: take {status} out of status_forcelist"
                )
        if self._calls.scheme.places[1]:
            silence()

    def send(self, request: PreparedRequest, *args: Any, **settings: Any) -> Response:
        """Send it with a token; again, silently, if the token is refused."""
        notes, url, calls = notes_of(_own(request, "TokenAdapter")), request.url, self._calls
        options = notes.get(_OPTIONS, _DEFAULTS)
        asked = notes.setdefault(_ASKED, url)
        here = asked is url and calls.scheme.origins is None
        if options.authenticated and (here or calls.carries(url_origin(str(url)), url_origin(str(asked)))):
            sending = Sending(calls, request, options.resource, self._adapter, (args, settings))
            calls.run(sending)
            response = sending.finish()
        else:
            response = self._adapter.send(request, *args, **settings)
        # Whoever sends on from an answer, as requests' own digest authentication does, is to come by here.
        response.connection = cast("Any", self)
        return response

    def close(self) -> None:
        """Close the adapter that sends. The manager stays open."""
        self._adapter.close()


_DEFAULTS = TokenOptions()


def _own(request: object, what: str) -> PreparedRequest:
    """*request*, if it is one of requests."""
    if isinstance(request, PreparedRequest):
        return request
    raise ConfigurationError(f"{what} of unexpired.clients.requests takes requests of requests, not {kind_of(request)}")
