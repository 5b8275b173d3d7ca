"""One adapter per HTTP client, in that client's own idiom. Each imports its client only when it is imported itself."""

from __future__ import annotations

__all__: list[str] = []
