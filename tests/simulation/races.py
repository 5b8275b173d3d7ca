"""The races that are drawn: a world each, what goes wrong in it, and what it has to come to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.simulation.servers import MODELS
from tests.simulation.staged import Cue
from tests.simulation.world import Plan

__all__ = ["RACES", "Race"]


@dataclass(frozen=True, slots=True)
class Race:
    """A world, and what it comes to: *shows* is the row that the picture is for; *lost* says why a login was.

    *people* act in the process of this number.
    """

    title: str
    text: str
    plan: Plan
    shows: str
    answers: dict[str, int]
    redemptions: int = 1
    lost: str = ""
    cues: tuple[Cue, ...] = ()
    people: int = 0


STRICT, GRACE = MODELS[0], MODELS[2]
PAIR = Plan(STRICT, processes=2, callers=1, faults=0, restarts=0, latency=(0.2,))
TIMED = replace(PAIR, timed=True, faults=1)
KILLED = (Cue("p0.flight1", "swap", "kill", nth=2),)
# A task that wakes from a pause counts as being where it was: each second time is no swap.
REFUSED = tuple(Cue("p0.flight1", "swap", "store error", nth=nth) for nth in (2, 3, 4))

RACES = (
    Race(
        "Many callers at expiry, in two processes",
        "Both processes find the token expired. One holds the lease and redeems; the other waits for the lease, then "
        "finds the new token in the store and takes it (it *adopts* it). One token request for all (P1).",
        replace(PAIR, callers=2),
        "store-->>p1: read: version 2",
        {"response": 4},
    ),
    Race(
        "A refusal that comes late",
        "Both requests leave with `AT1`. One is refused at once and leads to a refresh; the other's refusal comes "
        "9 seconds later. By then there is a newer token than the one it carried: it is sent again with that, and "
        "nothing is refreshed (P2).",
        replace(PAIR, processes=1, callers=2, faults=1, start="refused"),
        "API--xp0: c0: 401 for AT1",
        {"response": 2},
        cues=(Cue("p0.c0", "call", "late answer"),),
    ),
    Race(
        "Killed between the answer and the store, strict rotation",
        "`p0` has the answer, and is killed before it is stored: `AT2` and its refresh token are gone with it. `p1` "
        "finds the intent, has nothing but `RT1`, and the server takes that for theft. **This login cannot be "
        "saved**, by nobody; its callers are told once, with a reason of its own: `answer_lost`.",
        replace(PAIR, faults=1),
        "server--xp1: invalid_grant",
        {"LoginRequired: answer_lost": 1},
        redemptions=2,
        lost="killed between the commit and the swap",
        cues=KILLED,
    ),
    Race(
        "The same, where the server has a grace period",
        "The same kill at the same point. The server answers a spent refresh token for 10 more seconds, and the "
        "intent tells `p1` that asking again is right: the login goes on.",
        replace(PAIR, faults=1, model=GRACE),
        "Note over server: RT1 was spent before, answered all the same",
        {"response": 1},
        redemptions=2,
        cues=KILLED,
    ),
    Race(
        "The holder of a timed lease is stopped, and wakes after it",
        "The leases of a store on another machine end by themselves, here after 12 seconds. `p0` is stopped just "
        "before it sends. `p1` waits until `p0`'s lease is over and a request of it surely would be, too, and "
        "redeems. When `p0` wakes, its deadline is over: it does not send (P10).",
        TIMED,
        "p0-xstore: note on version 1, not stored (the record has changed)",
        {"response": 2},
        cues=(Cue("p0.flight1", "now", "pause past the lease", nth=4),),
    ),
    Race(
        "Two believe that they hold the lease",
        "A failover forgets `p0`'s timed lease, and `p1` gets it as well. Both have read version 1; both want to note "
        "an intent on it. The store takes one: a note counts the notes before it "
        "([why](../adr/0011-notes-are-fenced.md)). The other one does not send (P1); it goes back to "
        "the lease, and adopts the first one's token.",
        TIMED,
        "p0-xstore: intent on version 1, not stored (the record has changed)",
        {"response": 2},
        cues=(Cue("p0.flight1", "swap", "lease lost"), Cue("p0.flight1", "swap", nth=2)),
    ),
    Race(
        "Logout during a refresh",
        "Somebody logs out in `p1` while `p0`'s token request is on its way. The logout takes no lease and waits for "
        "nobody. The new token cannot be stored over the ended login, and is revoked (P8).",
        replace(PAIR, events=((0.12, "log out"),)),
        "p0->>server: revoke the login, RT2",
        {"LoginRequired: logout": 2},
        people=1,
    ),
    Race(
        "Login during a refresh",
        "Somebody logs in anew in `p1` while `p0` refreshes the old login. The late result cannot overwrite the new "
        "login, is dropped and not revoked, and everybody who waits gets the new login's token (P7, P8).",
        replace(PAIR, events=((0.12, "log in"),)),
        "p0-xstore: version 2 (AT2 and RT2), not stored (the record has changed)",
        {"response": 2},
        people=1,
    ),
    Race(
        "`invalid_grant` for a login that has been replaced",
        "The server has ended the old login; somebody logs in anew before `p0` hears `invalid_grant`. `p0` reads the "
        "store before it ends anything, and adopts the new login: nobody is told to log in again (P7).",
        replace(PAIR, events=((0.05, "login ends"), (0.12, "log in"))),
        "store-->>p0: read: login2, version 1",
        {"response": 2},
        people=1,
    ),
    Race(
        "The store refuses the new token",
        "`RT1` is spent, and the store does not take its successor. `p0` keeps the lease and goes on trying. Its own "
        "callers are served from memory after the third refusal (`Unsaved` is told); `p1` waits, and has the token as "
        "soon as it is stored (P5).",
        replace(PAIR, faults=3),
        "Note over p0: who waits is served from memory",
        {"response": 2},
        cues=REFUSED,
    ),
    Race(
        "The caller who began the refresh is cancelled",
        "`c0` began it and is cancelled while the token request is on its way. The flight belongs to nobody: it "
        "goes on, and `c1` is served (P9).",
        replace(PAIR, processes=1, callers=2, cancelled=((0.05, 0),)),
        "Note over p0: c0 is cancelled",
        {"cancelled": 1, "response": 1},
    ),
)
