"""How whoever writes wakes the scheduler, which waits and does not poll."""

from typing import Final

from django.db import connection

#: The PostgreSQL channel on which the scheduler listens.
WORK_CHANNEL: Final = "scale_work"


def wake_scheduler() -> None:
    """Tell the scheduler, when this transaction commits, that there is something to do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [WORK_CHANNEL])
