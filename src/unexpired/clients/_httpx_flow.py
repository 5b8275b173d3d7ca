"""The way of a request through httpx-like clients, once for threads and once for tasks.

A flow yields requests to send and is sent their responses: `TokenAuth` hands it to the client, the transports run it
themselves. Knows httpx2 and httpx by the names of their classes only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

from unexpired._core.replay import Send, replay
from unexpired._core.scheme import ACCEPTED, Judgement, Rendered, Scheme, Verdict
from unexpired._core.suspicion import endpoint_of
from unexpired._core.token import Token
from unexpired._engine.clock import boot
from unexpired.clients._calls import Calls
from unexpired.clients._dressing import with_cookies, with_parameters, without_parameters
from unexpired.clients._exchange import (
    AUTHENTICATED,
    ORIGIN,
    RESOURCE,
    aanswer,
    answer,
    body_refused,
    kind_of,
    opted_out,
    origin,
    replayed,
    step,
)
from unexpired.clients._httpx_bodies import Rewind, apeek, atake_in, is_long, peek, rewinder, stays, take_in
from unexpired.errors import ConfigurationError, LoginRequired
from unexpired.manager import TokenManager

__all__ = ["HttpxFlow", "sibling", "wrong_library"]


def dress_copy(module: Any, request: Any, rendered: Rendered) -> Any:
    """A copy of the request with the token, so that the client's request, log and history never hold it."""
    url = request.url
    if rendered.query:
        url = url.copy_with(query=with_parameters(url.query.decode(), rendered.query).encode())
    headers = request.headers.copy()
    for name, value in rendered.headers:
        headers[name] = value
    if rendered.cookies:
        headers["cookie"] = with_cookies(headers.get("cookie") or "", rendered.cookies)
    return module.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)


def wrong_library(what: str, module: Any, request: object) -> ConfigurationError:
    """*what*, which is for the clients of *module*, was handed the request of another library's client."""
    own = module.__name__
    return ConfigurationError(
        f"{what} of unexpired.clients.{own} takes requests of {own}, not {kind_of(request)}{sibling(module, request)}"
    )


def sibling(module: Any, subject: object) -> str:
    """Which adapters *subject* is for, if it belongs to the one of httpx2 and httpx that *module* is not."""
    roots = {base.__module__.partition(".")[0] for base in type(subject).__mro__}
    others = roots & {"httpx", "httpx2"} - {module.__name__}
    return "".join(f": unexpired.clients.{other} is for it" for other in others)


class HttpxFlow:
    """One manager and one scheme, for one kind of client. Safe for any number of threads and tasks."""

    def __init__(
        self, module: Any, factory_kind: type[Any], manager: TokenManager, scheme: Scheme | None, *, by_copy: bool
    ) -> None:
        calls = Calls(manager, scheme)
        scheme = calls.scheme
        self._module = module
        self._request_kind = module.Request
        self._bytes_kind = module.ByteStream
        self._factory_kind = factory_kind
        self._manager = manager
        self._warm = manager.warm
        self._scheme = scheme
        self._exchange = manager.exchange
        self.is_fine = calls.is_fine
        self._by_copy = by_copy
        self._limited = scheme.origins is not None
        self.in_query = bool(scheme.places[1])
        self._choosy = by_copy or self._limited
        self._known: tuple[Token | None, Rendered] = (None, Rendered((), (), ()))

    def ready(self, request: Any) -> tuple[Any, Token] | None:
        """What to send of *request*, and the token on it, when there is nothing to wait for and nothing to note.

        The short way of transports; None: take the long one.
        """
        if not isinstance(request, self._request_kind):
            raise wrong_library("the adapter", self._module, request)
        extensions = request.extensions
        first = extensions.setdefault(ORIGIN, request.url) is request.url
        # Beside that one a client's request has its timeout only, unless its caller says more.
        if self._limited or not first or len(extensions) != 2 or "timeout" not in extensions:
            return None
        if type(request.stream) is not self._bytes_kind:
            return None
        token = self._warm(None)
        if token is None:
            return None
        known = self._known
        rendered = known[1] if known[0] is token else self._render(token)
        return dress_copy(self._module, request, rendered), token

    def sync(self, request: Any) -> Generator[Any, Any, None]:
        """For blocking clients."""
        if not isinstance(request, self._request_kind):
            raise wrong_library("the adapter", self._module, request)
        extensions = request.extensions
        if (self._choosy or len(extensions) > 1 or AUTHENTICATED in extensions) and not self._applies(request):
            yield request
            return
        resource = extensions.get(RESOURCE)
        token = self._warm(resource) or self._manager.token(resource)
        dressed = self._dress(request, token)
        rewind = stays if type(request.stream) is self._bytes_kind else self._rewinder(request)
        response = yield dressed
        if not self.is_fine(response.status_code):
            yield from self.go_on(request, dressed, token, response, rewind)

    async def tasks(self, request: Any) -> AsyncGenerator[Any, Any]:
        """For asynchronous clients."""
        if not isinstance(request, self._request_kind):
            raise wrong_library("the adapter", self._module, request)
        extensions = request.extensions
        if (self._choosy or len(extensions) > 1 or AUTHENTICATED in extensions) and not self._applies(request):
            yield request
            return
        resource = extensions.get(RESOURCE)
        token = self._warm(resource) or await self._manager.atoken(resource)
        dressed = self._dress(request, token)
        rewind = stays if type(request.stream) is self._bytes_kind else self._rewinder(request)
        response = yield dressed
        if self.is_fine(response.status_code):
            return
        steps, told = self.ago_on(request, dressed, token, response, rewind), None
        try:
            while True:
                told = yield await steps.asend(told)
        except StopAsyncIteration:
            return
        finally:
            await steps.aclose()

    def go_on(
        self, request: Any, dressed: Any, token: Token, response: Any, rewind: Rewind | None
    ) -> Generator[Any, Any, None]:
        """Go on from *response*, which *request* got with *token*: yields what to send again."""
        where, exchange, times, since = _origin(request.url), self._exchange, 0, boot()
        try:
            judgement = self._judge(request, dressed, response)
            flow = replay(self._manager.key, token, judgement, where, _endpoint(request))
            told: object = None
            while (effect := step(flow, told)) is not None:
                if isinstance(effect, Send):
                    times += 1
                    dressed = self._again(request, response, effect.token, rewind)
                    if not self._by_copy and is_long(response):
                        response.stream.cut()
                    response = yield dressed
                    told = self._judge(request, dressed, response)
                else:
                    told = answer(exchange, effect, response.status_code)
            replayed(exchange, where, times, since)
        except LoginRequired as error:
            raise exchange.address(error) from None

    async def ago_on(
        self, request: Any, dressed: Any, token: Token, response: Any, rewind: Rewind | None
    ) -> AsyncGenerator[Any, Any]:
        """`go_on`, for tasks."""
        where, exchange, times, since = _origin(request.url), self._exchange, 0, boot()
        try:
            judgement = await self._ajudge(request, dressed, response)
            flow = replay(self._manager.key, token, judgement, where, _endpoint(request))
            told: object = None
            while (effect := step(flow, told)) is not None:
                if isinstance(effect, Send):
                    times += 1
                    dressed = self._again(request, response, effect.token, rewind)
                    if not self._by_copy and is_long(response):
                        await response.stream.cut()
                    response = yield dressed
                    told = await self._ajudge(request, dressed, response)
                else:
                    told = await aanswer(exchange, effect, response.status_code)
            replayed(exchange, where, times, since)
        except LoginRequired as error:
            raise exchange.address(error) from None

    def hush(self, sent: Any, response: Any) -> None:
        """Take the token out of a redirect that repeats the query: the client would carry it anywhere."""
        location = response.headers.get("location")
        if location is not None:
            names = {place.name for place in self._scheme.places[1]}
            ours = [(name, value) for name, value in sent.url.params.multi_items() if name in names]
            response.headers["location"] = without_parameters(location, ours)

    def _rewinder(self, request: Any) -> Rewind | None:
        return rewinder(request.stream, self._factory_kind, self._module)

    def _applies(self, request: Any) -> bool:
        """Whether this request is to carry a token: not opted out, to an allowed origin, no redirect to another one."""
        extensions = request.extensions
        if opted_out(extensions):
            return False
        if self._scheme.origins is not None and not self._scheme.allows(_origin(request.url)):
            return False
        if not self._by_copy or self._scheme.origins is not None:
            return True
        # The redirects of a call share its extensions.
        asked = extensions.setdefault(ORIGIN, request.url)
        return asked is request.url or _origin(asked) == _origin(request.url)

    def _again(self, request: Any, response: Any, token: Token, rewind: Rewind | None) -> Any:
        """The refused request with *token*. After a redirect that is the last hop only: the others were accepted."""
        if not self._by_copy and response.request is not request:
            hop = response.request
            if hop.stream is not request.stream:
                rewind = stays if type(hop.stream) is self._bytes_kind else self._rewinder(hop)
            request = hop
        if rewind is None:
            raise body_refused(self._manager.key, request.method, _origin(request.url))
        rewind()
        return self._dress(request, token)

    def _dress(self, request: Any, token: Token) -> Any:
        """The request with *token*: a copy, or the client's own, whose headers stay with its origin."""
        known = self._known
        rendered = known[1] if known[0] is token else self._render(token)
        if self._by_copy:
            return dress_copy(self._module, request, rendered)
        for name, value in rendered.headers:
            request.headers[name] = value
        return request

    def _render(self, token: Token) -> Rendered:
        """What to put on for *token*, as plain strings: these clients show headers with a mask of their own."""
        masked = self._scheme.render(token)
        places = (masked.headers, masked.query, masked.cookies)
        rendered = Rendered(*(tuple((name, str(value)) for name, value in pairs) for pairs in places))
        self._known = (token, rendered)
        return rendered

    def _judge(self, request: Any, sent: Any, response: Any) -> Judgement:
        if self._says_nothing(sent, response):
            return ACCEPTED
        judgement = peek(self._scheme, response, request.method, self._module)
        if judgement.verdict is not Verdict.ACCEPTED:
            take_in(response, self._module)
        return judgement

    async def _ajudge(self, request: Any, sent: Any, response: Any) -> Judgement:
        if self._says_nothing(sent, response):
            return ACCEPTED
        judgement = await apeek(self._scheme, response, request.method, self._module)
        if judgement.verdict is not Verdict.ACCEPTED:
            await atake_in(response, self._module)
        return judgement

    def _says_nothing(self, sent: Any, response: Any) -> bool:
        """Whether a redirect led to where the token did not go: what is said there of it means nothing."""
        if self._by_copy or response.request is sent:
            return False
        here = response.request
        same = here.headers.get("authorization") == sent.headers.get("authorization")
        return not same or _origin(here.url) != _origin(sent.url)


def _origin(url: Any) -> str:
    return origin(url.scheme, url.host, url.port)


def _endpoint(request: Any) -> str:
    return endpoint_of(request.method, request.url.path)
