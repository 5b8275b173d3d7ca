"""An API with its tokens in two headers of their own, codes in a 200, forms, and a refresh by GET.

UNEXPIRED_ACCESS_TOKEN=… UNEXPIRED_REFRESH_TOKEN=… python dialect_headers.py https://crm.example.com/a
"""

import sys

from unexpired import ApiClient, ApiError, InHeader, LoginRequired, Scheme, TokenManager, seed_from_environ
from unexpired.grants import RefreshTokenGrant

URL = sys.argv[1]

grant = RefreshTokenGrant(
    f"{URL}/security-amass/oauth/token",
    method="GET",
    client_id="impawning",
    client_secret="impawning",
    client_auth="client_secret_post",
)
manager = TokenManager(grant, key="dialect-headers", login_url="/")
scheme = Scheme(
    InHeader("access_token"),
    InHeader("refresh_token", "{refresh_token}"),
    code="code",
    expired=[40009],
    login_required=[40005, 40003],
    ok=[0],
)

manager.seed(seed_from_environ())  # the first token: the same one at the next start changes nothing

with ApiClient(
    URL,
    manager=manager,
    scheme=scheme,
    encoding="form",
    timeout=300,
    unwrap=True,
    on_login_required=lambda over: print("log in at", over.login_url),
) as api:
    try:
        with api.loading("Fetching orders …"):
            order = api.get("/orders", params={"n": 7})
            saved = api.post("/orders", {"id": "7", "name": "a b"})
    except LoginRequired:
        sys.exit(1)
    except ApiError as error:
        sys.exit(f"the API says: {error.message} ({error.code})")

print("order", order["n"], "sent", saved["body_length"], "bytes")
