"""Bring the database up to date and make the first user; one short process of `scale up`.

`python -m scale.embedded.first_start DESCRIPTOR [alone]` writes what was made as JSON to the
descriptor: `{}`, or `{"username", "token"}` and, if it is new, `"password"`. With `alone` no
scheduler uses the database yet.
"""

import json
import os
import secrets
import sys
from pathlib import Path

USERNAME = "admin"


def main(descriptor: int, *, alone: bool) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
    import django

    django.setup()
    migrate()
    make_roles()
    if alone:
        forget_the_last_scheduler()
    home = Path(os.environ["SCALE_HOME"])
    made = {} if (home / "token").exists() else make_admin(home / "admin-not-shown")
    with os.fdopen(descriptor, "w") as report:
        json.dump(made, report)


def migrate() -> None:
    """Apply what is missing; looking takes milliseconds where `migrate` itself takes a second."""
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=1)


def make_roles() -> None:
    """Bring the roles up to date; a new version may have others without a migration."""
    from scale.api.permissions import make_roles as make

    make()


def forget_the_last_scheduler() -> None:
    """Take back its sign of life: it was killed, and would pass for the one that starts next."""
    from scale.scheduler.models import SchedulerState

    SchedulerState.objects.update(is_connected=False)


def make_admin(not_shown: Path) -> dict[str, str]:
    """Make the user and a token; return what its owner must be shown.

    The file `not_shown` lasts until that was done. So a run that was killed before is repeated
    with a new password, but the password of an admin who is in use is never touched.
    """
    from django.contrib.auth.models import User
    from django.db import transaction
    from knox.models import get_token_model

    with transaction.atomic():
        users = User.objects
        admin = users.filter(username=USERNAME).first()
        made = {"username": USERNAME}
        if admin is None or not_shown.exists():
            not_shown.touch(mode=0o600)
            made["password"] = secrets.token_urlsafe(12)
            admin = admin or users.create_superuser(USERNAME)
            admin.set_password(made["password"])
            admin.save()
        _, made["token"] = get_token_model().objects.create(user=admin, expiry=None)
    return made


if __name__ == "__main__":
    main(int(sys.argv[1]), alone="alone" in sys.argv[2:])
