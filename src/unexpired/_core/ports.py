"""What the engine asks of stores and grants, as protocols: write your own by having these methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

from unexpired._core.session import Session
from unexpired._core.token import Token

__all__ = ["Grant", "GrantFunction", "HeldLease", "Store"]


class HeldLease(Protocol):
    """The right to redeem one session, held by this process until `release`.

    A *timed* lease ends by itself after the seconds it was asked for; the other kind ends with the process.
    *granted_at* is UNIX time on the clock that the store's leases use.
    """

    timed: bool
    granted_at: float

    def age(self) -> float:
        """Seconds since just before it was granted, on a clock that never jumps."""
        ...

    def renew(self) -> None:
        """Start a timed lease's seconds anew, if it is still held. Raises StoreError when it is not."""
        ...

    def release(self) -> None:
        """Give it up. Only its owner's lease is released; releasing twice, or after it ended, does nothing."""
        ...


@runtime_checkable
class Store(Protocol):
    """Keeps sessions by key. All methods block, may be called from any thread, and raise StoreError only.

    * What `swap` reported as stored survives a crash of the process and, unless the store says otherwise, of the
      machine.
    * A reader sees a whole record: the one before or the one after a swap.
    * `stamp` is cheap enough for every request.

    A store may have a method more: ``keys()``, an iterator of the keys of all its records, ended ones too, which
    raises StoreError. `unexpired.stores.migrate` and `Sealed.reseal` need it where they are not told the keys. One on
    another machine says so by an attribute ``remote = True``: then no caller whose token is good, and no event loop,
    waits for `load` longer than a tenth of a second.
    """

    @property
    def identity(self) -> Hashable:
        """Equal for two store objects of one process that keep the same sessions."""
        ...

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none. Raises StoreError for a record that cannot be read."""
        ...

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* durably if what is stored is *expected* (None: nothing stored); whether it was.

        `Session.replaces` says what is compared: login and version, and for a note on the same version *notes* too.
        """
        ...

    def stamp(self, key: str) -> Callable[[], object]:
        """A function that returns a value which differs whenever the record may have changed. It never raises."""
        ...

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> HeldLease | None:
        """Wait up to *wait* seconds for the lease, or until *stop* returns true (asked every few milliseconds)."""
        ...

    def set_aside(self, key: str) -> None:
        """Move a record that cannot be read out of the way, without destroying it."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Using the store again opens them again."""
        ...


@runtime_checkable
class Grant(Protocol):
    """How a new token is obtained, with everything a manager can make use of.

    *reuse_grace* is for how many seconds the server lets a spent refresh token be sent again (0: not at all).
    *spends_refresh_token* says whether `invalid_grant` means that the stored login is over.
    """

    reuse_grace: float
    spends_refresh_token: bool

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token | Mapping[str, Any]:
        """One token request, within *timeout* seconds in all.

        Raises NotSent, Refused, AnswerLost, LoginRequired or ConfigurationError; any other exception
        counts as AnswerLost.
        """
        ...

    def revoke(self, session: Session) -> bool:
        """Revoke the session's tokens at the server (RFC 7009), best effort: whether the server took it."""
        ...


GrantFunction = Callable[[Session], "Token | Mapping[str, Any] | Awaitable[Token | Mapping[str, Any]]"]
"""The simplest grant: any function, sync or async, from the stored session to a token answer."""
