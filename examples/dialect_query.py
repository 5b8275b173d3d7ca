"""An API with its token in the query, JSON in and out, an envelope, and a refresh of its own.

CRM_PASSWORD=… python dialect_query.py https://crm.example.com/b/api alice
"""

import asyncio
import os
import sys
from typing import Any

import httpx2

from unexpired import ApiError, AsyncApiClient, InQuery, LoginRequired, Scheme, Session, TokenManager
from unexpired.grants import FunctionGrant

URL, USER = sys.argv[1:]
user: dict[str, Any] = {}


def refresh(session: Session) -> dict[str, Any]:
    """The application's own refresh: one token, which is exchanged for the next."""
    answer: dict[str, Any] = httpx2.post(f"{URL}/refresh", json={"Token": session.tokens[None].access_token}).json()
    if answer["code"] != 0:
        raise LoginRequired("the server wants a new login")
    return answer


manager = TokenManager(
    FunctionGrant(refresh, response_fields={"access_token": "Token"}),
    key="dialect-query",
    login_url="/login?redirect={return_to}&code={code}",
    login_fields={"return_to": lambda: "/list?a=1", "code": "C1"},
)
scheme = Scheme(InQuery("token"), code="code", expired=[401], ok=[0])


async def main() -> None:
    """A page whose 8 panels call at once."""
    async with AsyncApiClient(
        URL,
        manager=manager,
        scheme=scheme,
        unwrap=True,
        clear_user=user.clear,
        on_login_required=lambda over: print("log in at", over.login_url),
    ) as api:
        if not manager.logged_in:
            with api.login_page():
                credentials = {"user": USER, "password": os.environ["CRM_PASSWORD"]}
                answer = await api.login("/login", credentials, fields={"access_token": "data.Token"})
                user["name"] = answer["data"]["user"]
        panels = await asyncio.gather(*(api.get(f"/panel/{n}", params={"n": n}) for n in range(8)))
        print("panels", *(panel["n"] for panel in panels))


try:
    asyncio.run(main())
except LoginRequired:
    sys.exit(1)
except ApiError as error:
    sys.exit(f"the API says: {error.message} ({error.code})")
