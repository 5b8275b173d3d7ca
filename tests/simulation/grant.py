"""The token endpoint as a grant of the product has it: a request, a wire where it can be lost, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation import ops
from tests.simulation.promises import Sent
from tests.simulation.scheduler import Message, Process
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, GrantError, NotSent, Refused

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["SimulatedGrant"]

BEFORE = frozenset({"error 500 before", "timeout before"})
LOSES = BEFORE | {"error 500 after", "timeout after", "answer lost", "malformed"}


class SimulatedGrant:
    """A `Grant` of one process."""

    spends_refresh_token = True

    def __init__(self, world: World, process: Process) -> None:
        self.reuse_grace = world.plan.model.grace
        self._world = world
        self._process = process

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token | Mapping[str, Any]:
        """One token request."""
        world = self._world
        sent = Sent(self._process, world.task, session, resource)
        # The check stands before the turn is handed back: between the last look at the clock and the send is nothing.
        world.promises.sending(sent)
        try:
            return self._exchange(sent, world.meet(ops.SEND), timeout)
        except GrantError as error:
            world.promises.failed(sent, ambiguous=isinstance(error, AnswerLost))
            raise
        finally:
            sent.given_up = True

    def _exchange(self, sent: Sent, fault: str | None, timeout: float) -> Mapping[str, Any]:
        world = self._world
        if fault == "no connection":
            raise NotSent("no connection", connecting=True)
        if fault == "busy (429)":
            world.promises.asked_to_wait(sent, 5.0)
            raise NotSent("busy", retry_after=5.0)
        if fault == "invalid_client":
            raise Refused("no", error="invalid_client")
        if fault == "no readable error":
            raise Refused("no", error=None)
        latencies = world.plan.latency
        delay = latencies[world.choices.pick(len(latencies))] if len(latencies) > 1 else latencies[0]
        if fault == "slow server":
            delay += 7.0
        task, until = world.task, world.now + timeout
        said: list[dict[str, Any] | None] = []

        def arrive() -> None:
            served = self._serve(sent, fault)

            def deliver() -> None:
                if not sent.given_up:
                    said.append(served)
                    world.wake(task)

            world.post(delay / 2, Message(f"the answer for {task.name}", ops.DELIVER, deliver, sent.process))

        sent.on_the_wire = fault not in BEFORE
        if sent.on_the_wire:
            world.post(delay / 2, Message(f"the request of {task.name}", ops.ARRIVE, arrive))
            world.meet_on_the_wire(task, sent, delay)
            while not said and world.now < until:
                world.park(until)
        if fault in ("timeout before", "timeout after"):
            while world.now < until:
                world.park(until)
        world.step(ops.SLEEP)
        if fault in LOSES or not said:
            sent.lost = fault or "too late"
            raise AnswerLost(f"{fault or 'no answer in time'}")
        return self._read(sent, said[0], fault)

    def _serve(self, sent: Sent, fault: str | None) -> dict[str, Any] | None:
        """The server gets to it."""
        world, refresh_token = self._world, sent.session.refresh_token or ""
        sent.on_the_wire = False
        before = len(world.server.reused)
        answer = world.server.redeem(refresh_token, sent.resource, sent)
        world.note(f"the server: {refresh_token} -> {answer['access_token'] if answer else 'invalid_grant'}")
        family = world.server.family(refresh_token)
        if len(world.server.reused) > before and family is not None:
            world.promises.ended_at_server(family, family.spent_by.get(int(refresh_token.rpartition("RT")[2])), sent)
        if answer is not None and (sent.given_up or fault in LOSES):
            sent.lost = fault or "too late"
        return answer

    def _read(self, sent: Sent, answer: dict[str, Any] | None, fault: str | None) -> Mapping[str, Any]:
        world = self._world
        if answer is None:
            world.promises.refused(sent)
            raise Refused("no", error="invalid_grant")
        if fault == "malformed, with a refresh token":
            raise AnswerLost("half an answer", refresh_token=answer.get("refresh_token"))
        if fault == "already expired":
            answer = {**answer, "expires_in": -5}
        world.promises.answered(sent, answer["access_token"])
        return answer

    def revoke(self, session: Session) -> bool:
        """RFC 7009: ends the whole login at the server."""
        world = self._world
        if world.step(ops.REVOKE) == "no connection":
            return False
        world.promises.revoking(session)
        family = world.server.family(session.refresh_token)
        if family is not None:
            world.server.revoke(family, "revoked")
        return True
