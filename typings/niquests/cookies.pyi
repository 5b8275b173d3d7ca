from http.cookiejar import CookieJar

from niquests import PreparedRequest

class RequestsCookieJar(CookieJar): ...

def get_cookie_header(jar: CookieJar, request: PreparedRequest) -> str | None: ...
