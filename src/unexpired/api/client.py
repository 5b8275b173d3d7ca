"""The client for scripts and threads."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Self, Unpack

import httpx2

from unexpired.api._answers import broken, checked, failed, is_of, may_hold_code
from unexpired.api._calls import Options
from unexpired.api._client import TROUBLE, Client, Settings, addressed
from unexpired.api._files import Counted, opened, sink, total_of
from unexpired.api._showing import Progress
from unexpired.clients.httpx2 import TokenTransport
from unexpired.errors import LoginRequired
from unexpired.manager import TokenManager

__all__ = ["ApiClient"]


class ApiClient(Client[Any]):
    """An API as a program wants it: calls that return bodies, for scripts and any number of threads.

    *manager* keeps the login, *scheme* says how the API takes the token and tells that it is over. *base_url*,
    *headers* and *timeout* (seconds) go for every call. *encoding* is how bodies are sent: ``"json"`` or ``"form"``.
    *envelope* describes answers like ``{"code": 0, "data": …}`` (default: by the scheme's codes); with *unwrap* its
    data is what calls return. *on_loading* is called with the number of calls under way, as they start and end.

    When a login is over, *clear_user* and then *on_login_required* are called once for it, however many calls were
    waiting, on the thread of the first one; every call raises LoginRequired. *transport* is what sends.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        manager: TokenManager,
        transport: httpx2.BaseTransport | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(base_url, manager, settings)
        carrier = TokenTransport(manager, self._scheme, transport)
        self._http = httpx2.Client(transport=carrier, **self._http_settings)

    def request(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> Any:
        """Make a call and return the body of its answer; see `Options`.

        Raises ApiError (*code* is the business code, the HTTP status, or -1 without an answer), LoginRequired when
        the login is over, and what `TokenManager.token` raises besides.
        """
        return self._calls.result(self.response(method, path, body, **options), options)

    def response(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> httpx2.Response:
        """The whole response, read, whatever its status or code; raises ApiError only where there is none."""
        arguments = self._calls.arguments(body, options)
        with self._loading:
            return self._send(method, path, arguments)

    @contextmanager
    def stream(
        self, method: str, path: str, body: Any = None, **options: Unpack[Options]
    ) -> Generator[httpx2.Response]:
        """A response whose body is read as it comes: ``with api.stream("GET", "/events") as response``.

        Raises ApiError for an HTTP failure, and where the connection breaks off inside the block.
        """
        arguments = self._calls.arguments(body, options)
        with self._loading:
            response = self._send(method, path, arguments, stream=True)
            try:
                if response.status_code >= 400:
                    response.read()
                    raise failed(response)
                yield response
            except httpx2.RequestError as error:
                if is_of(error, response):
                    raise broken(error, response) from error
                raise
            finally:
                response.close()

    def upload(
        self,
        path: str,
        file: str | os.PathLike[str] | IO[bytes],
        body: Mapping[str, Any] | None = None,
        *,
        field: str = "file",
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """POST a file as a multipart form, with *body*'s fields beside it. A seekable file survives a replay."""
        with opened(file) as (name, source):
            options["files"] = {field: (name, Counted(source, progress))}
            return self.request("POST", path, body, **options)

    def download(
        self,
        path: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> int:
        """GET into a file; how many bytes. A path gets the file only when it is whole."""
        with self.stream("GET", path, **options) as response:
            if may_hold_code(response, self._calls.envelope):
                response.read()
                checked(response, self._calls.envelope)
            done, total = 0, total_of(response.headers)
            with sink(target) as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
        return done

    def login(
        self, path: str, credentials: Any, *, fields: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> Any:
        """POST *credentials* to the application's own login endpoint, without a token, and store the session.

        *fields* says where its answer has what: ``{"access_token": "data.Token"}``. Returns the whole body.
        """
        whole = Options(authenticated=False, unwrap=False, into=None)
        body = self.request("POST", path, credentials, **(options | whole))
        self._manager.login(self._calls.seed(body, fields))
        return body

    def close(self) -> None:
        """Close the connections. The manager stays open."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, arguments: dict[str, Any], *, stream: bool = False) -> httpx2.Response:
        http = self._http
        try:
            return http.send(http.build_request(method, addressed(path, arguments), **arguments), stream=stream)
        except LoginRequired as error:
            self._endings.tell(error)
            raise
        except TROUBLE as error:
            raise broken(error) from error
