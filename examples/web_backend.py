"""A web back end whose users each have a login of their own at another API, in any number of processes.

STORE=redis://cache.internal/0 CRM_URL=https://crm.example.com uvicorn web_backend:app --workers 4
"""

import os

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from unexpired import LoginRequired, TokenManagers
from unexpired.clients.httpx2 import TokenAuth
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import open_store

URL = os.environ["CRM_URL"]
grant = RefreshTokenGrant(f"{URL}/oauth/token", client_id="crm", client_secret="crm-secret")
managers = TokenManagers(grant, store=open_store(os.environ["STORE"]), login_url="/login?reason={reason}")
crm = httpx2.AsyncClient(base_url=URL)  # one pool of connections for all users


async def user(request: Request) -> JSONResponse:
    """Log in with what the identity provider answered, or log out, everywhere."""
    manager = managers.manager(request.path_params["user"])  # in your program: from your own session cookie
    await (manager.alogin(await request.json()) if request.method == "PUT" else manager.alogout())
    return JSONResponse({"logged_in": manager.logged_in})


async def orders(request: Request) -> JSONResponse:
    """Ask the API as this user, whose token never expires in between."""
    answer = await crm.get("/api/orders", auth=TokenAuth(managers.manager(request.path_params["user"])))
    return JSONResponse(answer.json(), answer.status_code)


app = Starlette(
    routes=[Route("/{user}", user, methods=["PUT", "DELETE"]), Route("/{user}/orders", orders)],
    exception_handlers={LoginRequired: lambda _, over: JSONResponse({"login": over.login_url}, 401)},
)
