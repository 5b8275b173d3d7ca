"""P1 to P10 as predicates over what has happened, checked at the step where one could break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.scheduler import Process, Task
from tests.simulation.servers import Family, Issued
from unexpired._core.session import Session
from unexpired._core.token import Token

if TYPE_CHECKING:
    from tests.simulation.shelf import Lease
    from tests.simulation.world import World

__all__ = ["Broken", "Promises", "Sent"]

_TRIES_BEFORE_MEMORY = 3
_LONG_ENOUGH = 2.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was broken, and how."""

    promise: str
    how: str


@dataclass(eq=False)
class Sent:
    """One token request on its way: which version it redeems and who sent it."""

    process: Process
    task: Task
    session: Session
    resource: str | None
    on_the_wire: bool = False
    given_up: bool = False
    refusals: int = 0
    ambiguous: bool = False
    definite: bool = False
    lost: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether the server may have served it, and nobody knows."""
        return self.ambiguous or (self.process.dead and not self.definite)

    def __post_init__(self) -> None:
        self.stopped_before = self.process.stopped_for
        self.delayed = self.task.delayed

    @property
    def version(self) -> tuple[str, int]:
        """What is being redeemed."""
        return self.session.login, self.session.version


class Promises:
    """What a world has seen so far, as far as the promises need it."""

    def __init__(self, world: World) -> None:
        self.broken: Broken | None = None
        self.sent: list[Sent] = []
        self._world = world
        self._stored: set[str] = set()
        self._refusals_to_store: dict[tuple[int, str], list[float]] = {}
        self._answered: dict[tuple[str, int], Sent] = {}
        self._gone: dict[str, int] = {}
        self._refused_versions: set[tuple[str, int]] = set()
        self._for_nothing = 0
        self._asked: dict[tuple[str, int], tuple[float, Process]] = {}
        self._let_go: set[Task] = set()
        self._failed: dict[tuple[str, int], tuple[float, Task, bool]] = {}

    def breaks(self, promise: str, how: str) -> None:
        """Note the first one, and stop the world."""
        if self.broken is None:
            self.broken = Broken(promise, how)
            self._world.stop = True

    # -- token requests ---------------------------------------------------------------------------------------------

    def sending(self, sent: Sent) -> None:
        """A token request leaves."""
        world, session = self._world, sent.session
        lease = world.shelf.holder
        name = f"version {session.version}"
        answered = self._answered.get(sent.version)
        if answered is not None and not _excuse(answered):
            self.breaks("P1", f"{name} is redeemed again after an answer")
        for other in self.sent:
            if other.on_the_wire and not other.given_up and not other.process.dead and other.version == sent.version:
                self.breaks("P1", f"{name} is redeemed twice at the same time")
        if (lease is None or not lease.held() or lease.process is not sent.process) and not world.lease_was_lost:
            self.breaks("P10", f"{name} is redeemed without the lease")
        record = world.shelf.record
        if record is not None and record.same_version(session):
            intent = record.intent
            if (intent is None or not intent.owner.startswith(f"{sent.process.name}#")) and not world.lease_was_lost:
                self.breaks("P1", f"{name} is redeemed and no intent says so")
            self._needed(sent, record)
            self._paused(sent, record)
        self.sent.append(sent)

    def _needed(self, sent: Sent, record: Session) -> None:
        """P2: only what is expired, about to be, or refused is refreshed."""
        world = self._world
        token = record.tokens.get(sent.resource)
        if token is None:
            return
        issued = world.server.tokens.get(token.access_token)
        if issued is not None and issued.refused_wrongly:
            self._for_nothing += 1
            if self._for_nothing > world.patience_with_apis():
                self.breaks("P6", f"{self._for_nothing} refreshes because an API refuses good tokens")
        window = max(token.margin(world.policy.leeway), token.margin(world.policy.refresh_ahead, 0.25))
        soon = token.expires_at is not None and world.wall_of(sent.process) + world.jumps >= token.expires_at - window
        if not soon and issued is not None and not issued.refused:
            self.breaks("P2", f"{token.access_token} is refreshed: nobody refused it, and it is far from its expiry")

    def _paused(self, sent: Sent, record: Session) -> None:
        """P6: after a failure nobody asks again at once; a flight's own repetitions are its affair."""
        world = self._world
        failure = record.failure
        if failure is not None and failure.holds(world.wall_of(sent.process)) and not world.jumps:
            self.breaks("P6", f"version {record.version} is redeemed while its failure says to wait")
        until, process = self._asked.get(sent.version, (0.0, sent.process))
        known = not (process.dead or world.store_troubled or world.jumps or world.shelf.timed)
        if known and world.now < until - 0.01:
            self.breaks("P6", f"version {record.version} is redeemed before the server's Retry-After is over")
        failed = self._failed.get(sent.version)
        graceful = world.plan.model.grace > 0
        if failed is not None and failed[1] is sent.task and failed[2] and not graceful and world.now - failed[0] < 0.1:
            self.breaks("P1", f"version {record.version} is redeemed again at once after its answer was lost")
        if (
            failed is not None
            and failed[1] is not sent.task
            and not failed[1].process.dead
            and not world.store_troubled
            and not (world.shelf.timed and world.was_stopped())
            and world.now - failed[0] < 0.09
            and not world.jumps
        ):
            self.breaks("P6", f"version {record.version} is redeemed again at once after a failure")

    def asked_to_wait(self, sent: Sent, seconds: float) -> None:
        """The server named a pause."""
        self._asked[sent.version] = (self._world.now + seconds, sent.process)

    def failed(self, sent: Sent, *, ambiguous: bool) -> None:
        """The sender got no usable answer. *ambiguous*: the server may have served it."""
        if not sent.process.dead:
            self._failed[sent.version] = (self._world.now, sent.task, ambiguous)
            sent.ambiguous, sent.definite = ambiguous, not ambiguous

    def answered(self, sent: Sent, text: str) -> None:
        """The sender has a usable answer."""
        if not sent.process.dead:
            self._answered[sent.version] = sent
            sent.process.unstored = text

    def refused(self, sent: Sent) -> None:
        """The sender was told `invalid_grant`."""
        self._refused_versions.add(sent.version)

    def ended_at_server(self, family: Family, spent: Sent | None, sent: Sent) -> None:
        """The server took a refresh token for theft: it was redeemed by *spent* first, and now by *sent*."""
        world = self._world
        if sent.process.dead:
            why = "killed with a request on the wire"
        elif sent.given_up:
            why = "the server got to a request after its sender had given up"
        elif not world.plan.model.grace:
            why = _excuse(spent)
        elif not _excuse(spent):
            why = ""
        elif world.was_hindered():
            why = "nobody could come within the grace period"
        else:
            ends = family.rotated_at + world.plan.model.grace
            came = any(family.rotated_at < when <= ends for when in world.flights)
            why = "" if came else "nobody needed a token within the grace period"
        world.lost = why or "for nothing"
        if not why:
            self.breaks("P5", f"the login {family.name} is lost, and nothing happened that has to cost a login")

    # -- the store --------------------------------------------------------------------------------------------------

    def unsaved(self, new: Session) -> None:
        """The store refused to store this."""
        for sent in self._answered.values():
            sent.refusals += sent.task is self._world.task
        for token in new.tokens.values():
            key = (self._world.process.number, token.access_token)
            self._refusals_to_store.setdefault(key, []).append(self._world.now)

    def storing(self, old: Session | None, new: Session) -> None:
        """A swap is about to succeed."""
        world = self._world
        if old is not None and old.login == new.login:
            if old.ended is not None:
                self.breaks("P8", f"version {new.version} is stored over an ended login")
            if new.version < old.version:
                self.breaks("P5", f"version {new.version} is stored over version {old.version}")
            if new.ended is not None:
                self._ending(old, new.ended.reason)
            elif new.version > old.version:
                self._minting(old, new)
        elif old is not None and world.task not in world.logging_in:
            self.breaks("P8", "a login is overwritten by an older one")
        if new.ended is not None:
            self._gone[new.login] = world.steps
        for token in new.tokens.values():
            self._stored.add(token.access_token)
            if world.process.unstored == token.access_token:
                world.process.unstored = None

    def _minting(self, old: Session, new: Session) -> None:
        if self._world.task in self._let_go:
            self.breaks("P10", f"version {new.version} is stored after the lease was given up")
        if old.tokens.keys() - new.tokens.keys():
            self.breaks("P5", f"version {new.version} drops another resource's token")
        before, after = _generation(old.refresh_token), _generation(new.refresh_token)
        if after < before:
            self.breaks("P5", f"refresh token {after} is stored over {before}")

    def _ending(self, old: Session, reason: str) -> None:
        """P7: who ends a session ends the one it means."""
        version = (old.login, old.version)
        if reason in ("refused", "answer_lost") and version not in self._refused_versions:
            self.breaks("P7", f"version {old.version} is ended ({reason}), and the server never refused it")
        interrupted = [sent for sent in self.sent if sent.version == version and sent.interrupted]
        if reason == "refused" and interrupted and not self._world.store_troubled:
            self.breaks("P3", f"version {old.version} is ended (refused): it was lost when a refresh was interrupted")
        if reason == "answer_lost" and not interrupted and not self._world.hindered_unseen():
            self.breaks("P3", f"version {old.version} is ended (answer_lost), and no answer was lost")
        if reason == "login_required" and not any(
            token.access_token in self._world.called_over for token in old.tokens.values()
        ):
            self.breaks("P7", f"version {old.version} is ended ({reason}), and no API said so of its token")

    def granted(self, lease: Lease) -> None:
        """A lease is taken."""
        self._let_go.discard(lease.task)

    def released(self, lease: Lease) -> None:
        """P10: a lease is released by its owner."""
        self._let_go.add(lease.task)
        holder = self._world.shelf.holder
        if holder is not None and holder is not lease and holder.held():
            self.breaks("P10", "somebody else's lease is released")

    def revoking(self, session: Session) -> None:
        """P7: revocation acts on the whole login: it is for one that was logged out."""
        record = self._world.shelf.record
        if record is not None and record.login == session.login and record.ended is None:
            self.breaks("P7", "the tokens of a login that goes on are revoked")

    # -- calls ------------------------------------------------------------------------------------------------------

    def calling(self, token: Token, began: int) -> None:
        """A request leaves with *token*."""
        world = self._world
        tries = self._refusals_to_store.get((world.process.number, token.access_token), [])
        tried = len(tries) >= _TRIES_BEFORE_MEMORY or (len(tries) > 1 and tries[-1] - tries[0] >= _LONG_ENOUGH)
        if token.access_token not in self._stored and not tried:
            self.breaks("P5", f"{token.access_token} is used before it is stored")
        gone = self._gone.get(token.login)
        if gone is not None and gone < began and not world.shelf.timed and not world.process.blind:
            self.breaks("P8", f"{token.access_token} is used in a call that began after its login was ended")

    def refused_by_api(self, issued: Issued | None) -> None:
        """An API refused a token."""
        if issued is not None:
            issued.refused = True
            issued.refused_wrongly = not issued.dead and self._world.now < issued.expires

    def sent_again(self, name: str, times: int) -> None:
        """P6: one replay, and a second one with a token that was there already."""
        if times > 2:
            self.breaks("P6", f"one request of {name} was sent again {times} times")

    def finished(self, name: str, took: float, bound: float) -> None:
        """P3: a caller has its answer."""
        if took > bound:
            self.breaks("P3", f"{name} waited {took:.1f} s, {bound:.1f} s at most were promised")

    # -- in the end -------------------------------------------------------------------------------------------------

    def at_the_end(self) -> None:
        """Nothing is left to do."""
        world = self._world
        for caller in world.unanswered():
            self.breaks("P3", f"{caller} never got an answer")
        record = world.shelf.record
        if record is not None and record.ended is not None and record.ended.reason == "logout" and world.quiet():
            family = world.server.families.get(record.login)
            if family is not None and not family.revoked:
                self.breaks("P8", "somebody logged out, and the server was not told")
        lease = world.shelf.holder
        if lease is not None and lease.held() and not lease.abandoned and not world.lease_was_lost:
            self.breaks("P10", "the lease is still held, and nobody is working")


def _excuse(spent: Sent | None) -> str:
    """Why the answer to a request that the server served never came to be stored, if that was not our mistake."""
    if spent is None:
        return ""
    if spent.process.dead:
        return "killed between the commit and the swap"
    if spent.lost:
        return f"the answer was lost ({spent.lost})"
    if spent.process.paused or spent.process.stopped_for > spent.stopped_before or spent.task.delayed > spent.delayed:
        return "stopped between the commit and the swap"
    return "the store was away between the commit and the swap" if spent.refusals > _TRIES_BEFORE_MEMORY else ""


def _generation(refresh_token: str | None) -> int:
    return int((refresh_token or "RT0").rpartition("RT")[2])
