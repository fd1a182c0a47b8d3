"""What people may change about the scheduler."""

from django.db import transaction

from scale.scheduler.models import SchedulerState
from scale.wake import wake_scheduler


@transaction.atomic
def pause_scheduler(*, paused: bool) -> SchedulerState:
    """Start no new executions, or start them again; what runs goes on.

    Raises SchedulerState.DoesNotExist before the migrations made the row.
    """
    state = SchedulerState.objects.select_for_update(no_key=True).get(pk=SchedulerState.ONLY)
    if state.is_paused != paused:
        state.is_paused = paused
        state.save(update_fields=["is_paused"])
        wake_scheduler()
    return state
