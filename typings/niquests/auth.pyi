from niquests import PreparedRequest

class AuthBase:
    def __call__(self, r: PreparedRequest) -> PreparedRequest: ...
