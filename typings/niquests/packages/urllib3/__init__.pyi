import io
from typing import Any

class HTTPResponse(io.IOBase):
    status: int
    headers: Any
    version: int
    reason: str | None
    decode_content: bool
    retries: Any
    trailers: Any
    _original_response: Any

    def __init__(self, body: Any = ..., **settings: Any) -> None: ...
    @property
    def extension(self) -> Any: ...
    def geturl(self) -> str | None: ...
    def read(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...
    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...
    def _fp_read(self, amt: int | None = None, *, read1: bool = False) -> bytes: ...
    def release_conn(self) -> None: ...
    def close(self) -> None: ...

class AsyncHTTPResponse(HTTPResponse):
    async def read(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...  # type: ignore[override]
    async def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...  # type: ignore[override]
    async def _fp_read(self, amt: int | None = None, *, read1: bool = False) -> bytes: ...  # type: ignore[override]
    async def close(self) -> None: ...  # type: ignore[override]

class Retry:
    def __init__(self, **settings: Any) -> None: ...
