"""Machines become nodes, and stay the same nodes under a new agent id or address."""

import pytest
from django.utils import timezone
from scheduled import NOON, statements

from scale.core.cluster import Agent
from scale.core.resources import Resources
from scale.node.models import Node
from scale.node.registry import mark_offline, register_agents

pytestmark = pytest.mark.django_db
SIZE = Resources(4000, 8000, 50_000)


def agent(
    agent_id: str, hostname: str = "h1", *, total: Resources = SIZE, port: int = 5051
) -> Agent:
    return Agent(agent_id, hostname, "10.0.0.1", port, total)


def known() -> dict[str, str]:
    return dict(Node.objects.values_list("hostname", "slave_id"))


def test_a_new_machine_becomes_an_online_node() -> None:
    [node] = register_agents([agent("s1")], at=NOON)
    stored = Node.objects.get()
    assert (stored.pk, stored.hostname, stored.slave_id) == (node.pk, "h1", "s1")
    assert (stored.address, stored.port, stored.last_offer) == ("10.0.0.1", 5051, NOON)
    assert (stored.millicpus_total, stored.mem_mib_total, stored.disk_mib_total) == (
        4000,
        8000,
        50_000,
    )
    assert stored.is_online
    assert stored.is_active


def test_a_machine_keeps_its_node_under_a_new_agent_id() -> None:
    [node] = register_agents([agent("s1")], at=NOON)
    Node.objects.update(is_paused=True, pause_reason="disk")
    mark_offline(["s1"])
    [again] = register_agents([agent("s2", port=5052)], at=NOON)
    stored = Node.objects.get()
    assert (again.pk, stored.pk, stored.slave_id, stored.port) == (node.pk, node.pk, "s2", 5052)
    assert stored.is_online
    assert (stored.is_paused, stored.pause_reason) == (True, "disk"), "an operator's word stays"


def test_a_machine_keeps_its_node_under_a_new_name() -> None:
    [node] = register_agents([agent("s1", "old")], at=NOON)
    register_agents([agent("s1", "new")], at=NOON)
    assert known() == {"new": "s1"}
    assert Node.objects.get().pk == node.pk


def test_what_is_not_told_of_its_size_keeps_what_was_known() -> None:
    register_agents([agent("s1")], at=NOON)
    register_agents([agent("s1", total=Resources())], at=NOON)
    assert Node.objects.get().millicpus_total == 4000


def test_machines_may_change_their_names_and_ids_in_any_way() -> None:
    register_agents([agent("s1", "h1"), agent("s2", "h2")], at=NOON)
    register_agents([agent("s2", "h1"), agent("s1", "h2")], at=NOON)
    assert known() == {"h1": "s2", "h2": "s1"}


def test_a_machine_that_takes_the_name_of_one_that_left_takes_its_node() -> None:
    register_agents([agent("s1", "h1"), agent("s2", "h2")], at=NOON)
    register_agents([agent("s1", "h2")], at=NOON)
    nodes = {node.hostname: node for node in Node.objects.all()}
    assert nodes["h2"].slave_id == "s1"
    assert nodes["h2"].is_online
    assert not nodes["h1"].is_online
    register_agents([agent("s3", "h1")], at=NOON)
    assert known() == {"h1": "s3", "h2": "s1"}


def test_a_machine_with_a_new_name_leaves_its_old_one_to_another() -> None:
    register_agents([agent("s1", "h1")], at=NOON)
    register_agents([agent("s1", "h3"), agent("s9", "h1")], at=NOON)
    assert known() == {"h1": "s9", "h3": "s1"}


def test_only_those_named_go_offline() -> None:
    register_agents([agent("s1", "h1"), agent("s2", "h2")], at=NOON)
    mark_offline(["s1", "unknown"])
    assert dict(Node.objects.values_list("slave_id", "is_online")) == {"s1": False, "s2": True}


def test_a_node_that_was_archived_stays_so() -> None:
    register_agents([agent("s1")], at=NOON)
    Node.objects.update(is_active=False, archived=timezone.now())
    register_agents([agent("s1")], at=NOON)
    assert not Node.objects.get().is_active


def test_machines_are_read_in_one_query_and_written_in_one_each() -> None:
    def cost(number: int) -> int:
        machines = [agent(f"s{n}", f"h{n}") for n in range(number)]
        register_agents(machines, at=NOON)
        with statements() as sent:
            register_agents(machines, at=NOON)
        return sent.count

    assert cost(9) - cost(1) == 8


def test_nothing_is_done_for_nobody() -> None:
    assert register_agents([], at=NOON) == []
