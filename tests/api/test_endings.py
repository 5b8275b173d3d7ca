"""The end of a login is told once, where the first waiter is, and whatever becomes of the hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.api.fronts import Api, Front, get
from tests.dialects.dialects import A, manager_a
from unexpired import ApiClient, AsyncApiClient, LoginRequired, Session, StoreError, TokenManager
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle


def ended(server: ServerHandle, **options: Any) -> TokenManager:
    """A manager whose login the API takes for over, which it does not know yet."""
    manager = manager_a(server, **options)
    server.revoke_family()
    return manager


def test_hooks_run_where_the_first_waiter_is(server: ServerHandle, front: Front) -> None:
    """The hooks run, the user's data first, on the thread or in the event loop of a caller, not of the refresh."""
    told: list[Any] = []

    async def asynchronous(_: LoginRequired) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(threading.get_ident())

    def blocking(_: LoginRequired) -> None:
        told.append(threading.get_ident())

    async def job(api: Api) -> int:
        with pytest.raises(LoginRequired):
            await api.get("/orders")
        return threading.get_ident()

    hooks = {
        "clear_user": lambda: told.append("cleared"),
        "on_login_required": blocking if front.blocking else asynchronous,
    }
    callers = front.run(front.settings(server, ended(server), A, **hooks), [job] * 5)
    assert (told[0], len(told)) == ("cleared", 2)
    assert told[1] in callers


def test_told_again_after_a_new_login(server: ServerHandle, front: Front) -> None:
    """Scenario 63: each login that ends is told once: the next one's end is news again."""
    told: list[LoginRequired] = []
    manager = ended(server)
    for times in (1, 2):
        settings = front.settings(server, manager, A, on_login_required=told.append)
        outcomes = front.run(settings, [get("/orders")] * 3)
        assert {type(outcome) for outcome in outcomes} == {LoginRequired}
        assert len(told) == times
        answer = server.login()
        manager.login({name: answer[name] for name in ("access_token", "refresh_token")})
        server.revoke_family()


def test_told_once_for_all_clients_of_a_login(server: ServerHandle) -> None:
    """One navigation for a program with several clients and event loops, however they share the login."""
    told: list[LoginRequired] = []
    store = MemoryStore()
    ended(server, store=store)
    fronts = [Front(name) for name in ("threads", "asyncio", "trio")]
    for front in fronts:
        manager = TokenManager(lambda _: {}, store=store, key="a")
        front.run(front.settings(server, manager, A, on_login_required=told.append), [get("/orders")] * 3)
    assert len(told) == 1


def test_a_late_caller_of_a_login_that_was_replaced(server: ServerHandle, front: Front) -> None:
    """Scenario 63: when the hook itself logs in, callers who hear later of the old login's end start nothing."""
    manager = ended(server)
    told: list[LoginRequired] = []
    late: list[LoginRequired] = []

    def log_in(error: LoginRequired) -> None:
        told.append(error)
        answer = server.login()
        manager.login({name: answer[name] for name in ("access_token", "refresh_token")})

    async def job(api: Api) -> Any:
        with pytest.raises(LoginRequired) as over:
            await api.get("/orders")
        late.append(over.value)
        await said(api.client._endings.atell if not front.blocking else api.client._endings.tell, over.value)
        return (await api.get("/orders"))["code"]

    assert front.one(front.settings(server, manager, A, on_login_required=log_in), job) == 0
    assert told == late


async def said(tell: Callable[[LoginRequired], Any], error: LoginRequired) -> None:
    """Tell, in the words of either client."""
    if (waiting := tell(error)) is not None:
        await waiting


def test_nobody_ever_logged_in(server: ServerHandle, front: Front) -> None:
    """A program that starts without a login is sent to the login page once, and without a request."""
    told: list[LoginRequired] = []
    manager = TokenManager(lambda _: {}, store=MemoryStore())
    outcomes = front.run(front.settings(server, manager, A, on_login_required=told.append), [get("/orders")] * 4)
    assert {outcome.reason for outcome in outcomes} == {"no_session"}
    assert (len(told), server.stats().api_calls) == (1, 0)


def test_step_up_is_told_once(server: ServerHandle, front: Front) -> None:
    """Scenario 39: a stronger login is asked for once for each thing asked, and the session lives on."""
    told: list[LoginRequired] = []
    manager = manager_a(server)
    rule = {"kind": "insufficient_user_authentication", "prefix": "/api/strong", "acr_values": "gold"}
    settings = {"manager": manager, "base_url": server.url, "on_login_required": told.append}
    server.api_faults([rule])
    for path in ("/api/strong", "/api/strong", "/api/x"):
        front.run(settings | {"transport": front.transport()}, [get(path)] * 3)
    assert [(error.reason, error.challenge["acr_values"]) for error in told] == [("step_up", "gold")]
    server.api_faults([rule | {"acr_values": "platinum"}])
    (error,) = front.run(settings | {"transport": front.transport()}, [get("/api/strong")])
    assert told[1:] == [error]
    assert server.stats().token_posts == 0


def test_a_hook_that_fails(server: ServerHandle, front: Front, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises keeps neither the next hook nor the LoginRequired from anybody; its words are not logged."""
    told: list[LoginRequired] = []

    def fail() -> None:
        raise LookupError("M4RK3D")

    hooks = {"clear_user": fail, "on_login_required": told.append}
    outcomes = front.run(front.settings(server, ended(server), A, **hooks), [get("/orders")] * 3)
    assert {type(outcome) for outcome in outcomes} == {LoginRequired}
    assert len(told) == 1
    assert "LookupError at test_endings.py" in caplog.text
    assert "M4RK3D" not in caplog.text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_hook_has_told_nobody(server: ServerHandle, backend: str) -> None:
    """Scenario 57: when the first waiter is cancelled inside its hook, the next caller's hook runs instead."""
    manager = ended(server)
    entered: list[int] = []

    async def main() -> None:
        async def hook(_: LoginRequired) -> None:
            entered.append(len(entered))
            if len(entered) == 1:
                scope.cancel()
                await anyio.sleep_forever()

        settings = Front(backend).settings(server, manager, A, on_login_required=hook)
        async with AsyncApiClient(**settings) as api:
            with anyio.CancelScope() as scope:
                await api.get("/orders")
            assert scope.cancelled_caught
            for _ in range(2):
                with pytest.raises(LoginRequired):
                    await api.get("/orders")

    anyio.run(main, backend=backend)
    assert entered == [0, 1]


def test_interrupted_hook(server: ServerHandle) -> None:
    """Ctrl-C inside a hook ends the program's call as it should, and the next call's hook runs."""
    told: list[LoginRequired] = []

    def hook(error: LoginRequired) -> None:
        told.append(error)
        if len(told) == 1:
            raise KeyboardInterrupt

    with ApiClient(**Front("threads").settings(server, ended(server), A, on_login_required=hook)) as api:
        with pytest.raises(KeyboardInterrupt):
            api.get("/orders")
        for _ in range(2):
            with pytest.raises(LoginRequired):
                api.get("/orders")
    assert len(told) == 2


def test_unreadable_store(server: ServerHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store cannot say which login ended the program is told all the same, once."""
    manager = ended(server)
    told: list[LoginRequired] = []

    def broken(_: object) -> Session | None:
        raise StoreError("unreadable")

    monkeypatch.setattr(TokenManager, "session", broken)
    with ApiClient(**Front("threads").settings(server, manager, A, on_login_required=told.append)) as api:
        for _ in range(2):
            with pytest.raises(LoginRequired):
                api.get("/orders")
    assert len(told) == 1


def test_a_client_without_hooks_takes_nobodys_news(server: ServerHandle, front: Front) -> None:
    """A client without hooks that hears first of the end leaves the telling to the one that has them."""
    manager = ended(server)
    told: list[LoginRequired] = []
    front.run(front.settings(server, manager, A), [get("/orders")])
    front.run(front.settings(server, manager, A, on_login_required=told.append), [get("/orders")])
    assert len(told) == 1
