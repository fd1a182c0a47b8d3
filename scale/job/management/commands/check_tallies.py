"""`scale manage check_tallies`: count all rows anew, and correct the kept counts."""

from typing import Any

from django.core.management.base import BaseCommand

from scale.job.tallies import correct_tallies


class Command(BaseCommand):
    """Says what was wrong and is right now; the worker does the same once a day."""

    help = "Count all jobs and executions, and correct the kept counts. Nothing has to stop."

    def handle(self, *args: Any, **options: Any) -> None:
        found = correct_tallies()
        for each in found:
            self.stdout.write(
                f"{each.scope.label} {each.key} {each.status}: {each.kept}, should be {each.true}"
            )
        self.stdout.write(f"{len(found)} of the kept counts were wrong." if found else "All right.")
