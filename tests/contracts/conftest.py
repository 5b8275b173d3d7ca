"""The stores are held to their contract as they are tested otherwise: however slow this machine is."""

from __future__ import annotations

from tests.stores.conftest import _heard_before_the_first_stamp

__all__ = ["_heard_before_the_first_stamp"]
