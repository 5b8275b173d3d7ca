"""The steps of a world: their names, the faults that can meet them, and what they touch."""

from __future__ import annotations

from tests.simulation.scheduler import Op

__all__ = [
    "AFTER",
    "API",
    "ARRIVE",
    "BEGIN",
    "DELIVER",
    "JOINED",
    "LEASE",
    "LEASE_AGAIN",
    "LOAD",
    "LOOK",
    "NEEDS",
    "NOW",
    "PERSON",
    "PUBLISH",
    "REFUSED",
    "RELEASE",
    "RENEW",
    "REVOKE",
    "SEND",
    "SET_ASIDE",
    "SLEEP",
    "SWAP",
    "TAKE_OFF",
    "TURN",
    "WIRE",
]

EVERYWHERE = ("kill", "pause past the lease", "pause for a moment", "slow", "clock jumps", "lease lost")
# What begins with ~ belongs to a process: what it knows of the session, the flights under way, what it suspects.
VIEW = frozenset({"~view"})
FLIGHTS = frozenset({"~flights"})
SUSPICIONS = frozenset({"~suspicions"})
RECORD = frozenset({"record"})
LEASES = frozenset({"lease"})
SERVER = frozenset({"server"})
NOTHING: frozenset[str] = frozenset()

BEGIN = Op("begin", (), RECORD | VIEW)
"""A caller starts: it looks at what the process knows."""
TAKE_OFF = Op("take off")
"""A flight starts."""
TURN = Op("turn", ("pause for a moment", "cancelled"), RECORD, FLIGHTS)
"""Between looking and asking, where another thread of the process may come first."""
NOW = Op("now", EVERYWHERE)
NEEDS = Op("needs", (), FLIGHTS)
"""A flight looks who has joined it."""
LEASE = Op("lease", (*EVERYWHERE, "store error"), RECORD, LEASES)
LEASE_AGAIN = Op("lease again", EVERYWHERE, RECORD, LEASES)
"""Whoever waits for the lease looks whether it is free."""
RELEASE = Op("release", (*EVERYWHERE, "store error"), NOTHING, LEASES)
PUBLISH = Op("publish", ("kill",), NOTHING, VIEW | FLIGHTS)
"""A flight ends: its result is known, and everybody is woken."""
RENEW = Op("renew", (*EVERYWHERE, "store error"), NOTHING, LEASES)
LOAD = Op("load", (*EVERYWHERE, "store error", "stale", "store down"), RECORD)
"""A flight reads the record."""
LOOK = Op("look", (*EVERYWHERE, "store error", "stale", "store down"), RECORD, VIEW)
"""A caller reads the record."""
SWAP = Op("swap", (*EVERYWHERE, "store error", "stored, and an error said", "store down", "disk full"), NOTHING, RECORD)
SET_ASIDE = Op("set aside", ("kill", "store error"), NOTHING, RECORD)
SLEEP = Op("sleep", ("kill", "pause past the lease"))
JOINED = Op("woken", ("cancelled",), FLIGHTS)
AFTER = Op("after", ("pause for a moment", "cancelled"))
"""Between a flight's result and what its caller does with it."""
SEND = Op(
    "send",
    (
        "no connection", "busy (429)", "error 500 before", "error 500 after", "timeout before", "timeout after",
        "answer lost", "malformed", "malformed, with a refresh token", "invalid_client", "no readable error",
        "slow server", "already expired",
    ),
    NOTHING,
    SERVER,
)  # fmt: skip
"""The token request leaves: what will become of it. No pause here: between the last look at the clock and the send
nothing can be promised."""
WIRE = Op("wire", ("kill", "pause past the lease", "lease lost"))
ARRIVE = Op("arrive", (), NOTHING, SERVER)
DELIVER = Op("deliver")
REVOKE = Op("revoke", ("kill", "no connection"), NOTHING, SERVER)
API = Op("call", ("pause for a moment", "cancelled", "late answer", "refused all the same"), SERVER)
REFUSED = Op("refused", ("kill", "pause for a moment", "cancelled"), RECORD | VIEW, SUSPICIONS)
"""What the API said is looked into."""
PERSON = Op("person", (), RECORD, RECORD)
