"""`ApiClient` and `AsyncApiClient`: one object for a whole program that talks to one API, login and all.

Calls return bodies, business codes are exceptions, expired tokens are nobody's business, and the end of a login is
told once. It is httpx2 with `unexpired.clients.httpx2` beneath; use those where you want responses.
"""

from __future__ import annotations

from unexpired.api._answers import Envelope
from unexpired.api._calls import Options
from unexpired.api._showing import Progress, progress_bar
from unexpired.api.async_client import AsyncApiClient
from unexpired.api.client import ApiClient

__all__ = ["ApiClient", "AsyncApiClient", "Envelope", "Options", "Progress", "progress_bar"]
