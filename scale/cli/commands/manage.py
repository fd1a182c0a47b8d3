"""`scale manage` and `scale migrate`: Django's own commands."""

import os
from collections.abc import Sequence

from scale.embedded.home import Home, default_home


def use_settings() -> None:
    """Have Django's settings; without DATABASE_URL, those of `scale up` on this machine."""
    if not os.environ.get("DATABASE_URL"):
        for name, text in Home(default_home(os.environ)).environment().items():
            os.environ.setdefault(name, text)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")


def run(arguments: Sequence[str]) -> None:
    """Run a management command."""
    use_settings()
    from django.core.management import execute_from_command_line

    execute_from_command_line(["scale manage", *arguments])
