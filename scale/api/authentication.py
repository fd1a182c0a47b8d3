"""Who is asking: a token in the Authorization header, or the session of the admin."""

from functools import cache
from hmac import compare_digest

from django.contrib.auth.models import User
from django.db import connection
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed

from scale.job.rows import columns_of, execute_prepared, fields_of, row_of


class Token(TokenAuthentication):  # type: ignore[misc] # knox is not typed
    """Knox' tokens, in one query, and deaf to headers that are no text."""

    def authenticate_credentials(self, token: bytes):  # type: ignore[no-untyped-def]
        if not token.isalnum():
            raise AuthenticationFailed("Invalid token.")
        digest = hash_token(token.decode())
        for found in _tokens_with(token[: CONSTANTS.TOKEN_KEY_LENGTH].decode()):
            if compare_digest(digest, found.digest) and not self._cleanup_token(found):
                return self.validate_user(found)
        raise AuthenticationFailed("Invalid token.")

    def _cleanup_token(self, auth_token) -> bool:  # type: ignore[no-untyped-def]
        # Knox looks through all tokens of the user here, at each request.
        return bool(auth_token.expiry and super()._cleanup_token(auth_token))


def _tokens_with(key: str) -> list[AuthToken]:
    """Return the tokens that begin so, each with its user; one query.

    By hand, for it is part of every request, and Django takes longer to write it than PostgreSQL
    to run it.
    """
    with connection.cursor() as cursor:
        execute_prepared(cursor, _statement(), [key])
        rows = cursor.fetchall()
    width = len(fields_of(AuthToken))
    tokens = []
    for row in rows:
        token = row_of(AuthToken, row[:width])
        token.user = row_of(User, row[width:])
        tokens.append(token)
    return tokens


@cache
def _statement() -> str:
    return (
        f"SELECT {columns_of(AuthToken, 'token')}, {columns_of(User, 'owner')} "  # noqa: S608
        "FROM knox_authtoken AS token JOIN auth_user AS owner ON owner.id = token.user_id "
        "WHERE token.token_key = $1"
    )
