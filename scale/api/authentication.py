"""Who is asking: a token in the Authorization header, or the session of the admin."""

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed


class Token(TokenAuthentication):  # type: ignore[misc] # knox is not typed
    """Knox' tokens, in one query, and deaf to headers that are no text."""

    def authenticate_credentials(self, token: bytes):  # type: ignore[no-untyped-def]
        if not token.isalnum():
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)

    def _cleanup_token(self, auth_token) -> bool:  # type: ignore[no-untyped-def]
        # Knox looks through all tokens of the user here, at each request.
        return bool(auth_token.expiry and super()._cleanup_token(auth_token))
