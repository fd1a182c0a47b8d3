"""Django's PostgreSQL, whose sessions are looked at before each request without a round trip.

A settings' ENGINE is a package with this module and this class in it.
"""

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to PostgreSQL."""

    connection: Any

    def is_usable(self) -> bool:
        """Say whether the session can be used; CONN_HEALTH_CHECKS asks this before each request.

        A session that has ended has something to read, its end or why: then the server is asked.
        Of one that is silent a statement would tell no more than the first one of the request.
        """
        if self.connection.closed:
            return False
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        return not poller.poll(0) or super().is_usable()
