"""Telling what happens, from events alone: `logging`, `opentelemetry` and `prometheus`, each with one `observe`.

``observe(manager)`` subscribes to a `TokenManager`, or to all managers of a `TokenManagers`, and returns a function
that ends it. Observe any number of managers; two of the same session are counted once. No token is ever in what is
told. Names of metrics, spans and fields change only with `VERSION`. ``docs/reference/metrics.md`` lists them.
"""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "1"
"""Of the names, as the version of the meter and the tracer, and as a label of ``unexpired_metrics_info``."""
