"""What tests do in place of the scheduler."""

from datetime import datetime

from scale.core.lifecycle import Event, Phase
from scale.core.resources import Resources
from scale.job.models import JobExecution
from scale.job.services import Move, Placed, move_executions
from scale.node.models import Node


def launch(execution: JobExecution, node: Node, *, at: datetime) -> None:
    """Send the current phase to a node, as the scheduler would."""
    task_id = f"{execution.uuid}.{Phase(execution.phase)}.{execution.launches + 1}"
    placed = Placed(
        node_id=node.pk,
        agent_id=node.slave_id,
        framework_id="framework",
        task_id=task_id,
        needs=Resources(
            execution.needs_millicpus, execution.needs_mem_mib, execution.needs_disk_mib
        ),
        command_arguments="",
        environment={"SCALE_JOB_ID": str(execution.job_id)},
    )
    move_executions([Move(execution.pk, Event.LAUNCH, placed=placed)], at=at)
