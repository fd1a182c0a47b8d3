"""What is allowed in a job type but probably not meant; told before it is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Max

from scale.job.documents import Interface, read_interface
from scale.job.models import JobType
from scale.job.submission import check_documents
from scale.node.models import Node


@dataclass(frozen=True, slots=True)
class Advice:
    """A warning: `id` for programs, `details` for people."""

    id: str
    details: str


def advise(fields: Mapping[str, Any]) -> list[Advice]:
    """Check the fields of a new job type and return what is doubtful; writes nothing.

    Three queries. Raises InvalidInput as making the job type would.
    """
    check_documents(fields)
    draft = JobType(**fields)
    interface = read_interface(fields["interface"])
    return [
        *_taken(draft),
        *_too_large(draft),
        *_unused_inputs(interface),
        *_outputs_without_pattern(interface),
        *_for_containers_only(draft),
    ]


def _taken(draft: JobType) -> Iterator[Advice]:
    if JobType.objects.filter(name=draft.name, version=draft.version).exists():
        yield Advice("name_taken", f"Job type {draft} exists; only changing it is possible.")


def _too_large(draft: JobType) -> Iterator[Advice]:
    """Compare with the largest of each kind: no one node need have all of them."""
    nodes = Node.objects.filter(is_active=True, is_online=True)
    most = nodes.aggregate(
        cpus=Max("millicpus_total"), mem=Max("mem_mib_total"), disk=Max("disk_mib_total")
    )
    asked = {
        "cpus": ("cores", draft.cpus_required, (most["cpus"] or 0) / 1000),
        "mem": ("MiB of memory", draft.mem_required, most["mem"] or 0),
        "disk": ("MiB of disk", draft.disk_out_const_required, most["disk"] or 0),
    }
    for kind, (unit, wanted, there) in asked.items():
        if most[kind] is not None and wanted > there:
            yield Advice(
                "no_node_large_enough",
                f"It asks for {wanted:g} {unit}; the largest node that is online has {there:g}.",
            )
    if all(value is None for value in most.values()):
        yield Advice("no_nodes", "No node is online, so that its jobs would wait.")


def _unused_inputs(interface: Interface) -> Iterator[Advice]:
    used = f"{interface.command} {interface.command_arguments}"
    placed = set(interface.template().names)
    for given in interface.inputs:
        if given.name not in placed and given.variable not in used:
            yield Advice(
                "unused_input",
                f"The command line does not mention input {given.name!r}; the command itself "
                f"must read ${given.variable}.",
            )


def _outputs_without_pattern(interface: Interface) -> Iterator[Advice]:
    for made in interface.outputs:
        if made.required and made.pattern is None:
            yield Advice(
                "output_without_pattern",
                f"Output {made.name!r} is required and has no pattern: the command must name its "
                "files, in results_manifest.json or in ARTIFACT lines.",
            )


def _for_containers_only(draft: JobType) -> Iterator[Advice]:
    if draft.docker_image:
        return
    for name in ("volumes", "docker_privileged"):
        if getattr(draft, name):
            yield Advice("no_container", f"{name} has no effect without docker_image.")
