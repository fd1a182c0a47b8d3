"""Section 2 and ACCEPT: what is offered when, and what may be launched on it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from contract_cluster import Cluster
from contract_framework import (
    Framework,
    cpus_of,
    is_offers,
    is_update,
    make_task,
    scalar,
)

Make = Callable[..., Framework]


def refusal(framework: Framework) -> dict[str, Any]:
    return dict(framework.until(is_update)["update"]["status"])


def test_an_offer_names_its_agent_and_address(cluster: Cluster, framework: Framework) -> None:
    offer = framework.offer()
    address = offer["url"]["address"]
    agents = cluster.agents()
    assert f"{address['ip']}:{address['port']}" == agents[offer["agent_id"]["value"]]
    assert offer["url"]["path"] == "/slave(1)"
    assert {"cpus", "mem", "disk", "ports"} <= {r["name"] for r in offer["resources"]}


def test_an_offer_that_was_declined_is_stale_and_drops_its_tasks(make_framework: Make) -> None:
    for kinds, state in (([{"type": "PARTITION_AWARE"}], "TASK_DROPPED"), ([], "TASK_LOST")):
        framework = make_framework(capabilities=kinds).subscribe()
        offer = framework.offer()
        framework.call("DECLINE", decline={"offer_ids": [offer["id"]]})
        task = make_task(offer, "true")
        framework.accept([offer], [task])
        status = refusal(framework)
        assert (status["state"], status["reason"]) == (state, "REASON_INVALID_OFFERS")
        assert status["source"] == "SOURCE_MASTER"
        assert "uuid" not in status
        assert status["message"] == (
            f"Task launched with invalid offers: Offer {offer['id']['value']} is no longer valid"
        )
        framework.close()
        framework.stream_id = ""


def test_one_invalid_offer_makes_the_whole_accept_invalid(framework: Framework) -> None:
    offer = framework.offer()
    task = make_task(offer, "true")
    framework.accept([offer, {"id": {"value": "no-such-offer"}}], [task])
    assert refusal(framework)["reason"] == "REASON_INVALID_OFFERS"
    assert framework.offer()["id"] != offer["id"]


def test_two_offers_of_one_agent_can_be_used_together(framework: Framework) -> None:
    first = framework.offer()
    cpus = cpus_of(first)
    held = make_task(first, "sleep 100", cpus=cpus / 2)
    framework.accept([first], [held], refuse=0)
    rest = framework.offer()
    framework.call("KILL", kill={"task_id": held["task_id"]})
    framework.run_until(held)
    freed = framework.offer()
    assert freed["agent_id"] == rest["agent_id"]
    both = make_task(rest, "true", cpus=cpus * 0.9)
    framework.accept([rest, freed], [both])
    assert framework.run_until(both)["state"] == "TASK_FINISHED"


def bad(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def make(offer: dict[str, Any]) -> dict[str, Any]:
        task = make_task(offer, "true")
        for name, value in more.items():
            if value is None:
                del task[name]
            else:
                task[name] = value
        return task

    return make


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (bad(task_id={"value": "bad/id"}), "'bad/id' contains invalid characters"),
        (bad(task_id={"value": ".."}), "'..' is disallowed"),
        (bad(task_id={"value": "x" * 256}), "ID must not be greater than 255 characters"),
        (bad(agent_id={"value": "other"}), "Task uses invalid agent other while agent "),
        (bad(command=None), "Task should have at least one (but not both) of CommandInfo or"),
        (bad(executor={"executor_id": {"value": "e"}}), "Task should have at least one (but not"),
        (bad(resources=[]), "Task uses no resources"),
        (bad(resources=[scalar("cpus", -1)]), "Resource 'cpus(allocated: *):-1' is invalid"),
        (bad(resources=[scalar("cpus", 1000)]), "Total resources cpus(allocated: *):1000 required"),
        (
            bad(resources=[scalar("cpus", 0.1, allocation_info={"role": "other"})]),
            "Total resources cpus(allocated: other):0.1 required by task",
        ),
        (
            bad(
                resources=[
                    scalar("cpus", 0.1),
                    {
                        "name": "ports",
                        "type": "RANGES",
                        "ranges": {"range": [{"begin": 80, "end": 80}]},
                    },
                ]
            ),
            "Total resources cpus(allocated: *):0.1; ports(allocated: *):[80-80] required",
        ),
        (
            bad(kill_policy={"grace_period": {"nanoseconds": -1}}),
            "Task's 'kill_policy.grace_period' must be non-negative",
        ),
    ],
)
def test_a_bad_task_gets_task_error_and_the_others_go_on(
    framework: Framework, make: Callable[[dict[str, Any]], dict[str, Any]], text: str
) -> None:
    offer = framework.offer()
    good = make_task(offer, "true")
    framework.accept([offer], [make(offer), good])
    status = refusal(framework)
    assert (status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_INVALID")
    assert status["message"].startswith(text)
    assert "uuid" not in status
    assert framework.run_until(good)["state"] == "TASK_FINISHED"


def test_the_id_of_a_live_task_cannot_be_used_again(framework: Framework) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("REVIVE")
    again = framework.launch("true", task_id=task["name"])
    assert framework.run_until(again)["message"] == f"Task has duplicate ID: {task['name']}"


def test_zero_cpus_and_numbers_as_text_are_accepted(framework: Framework) -> None:
    task = framework.launch("true", cpus=0, mem="32")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


@pytest.mark.local_mesos("unsupported")
@pytest.mark.parametrize("what", ["executor", "health_check", "group"])
def test_what_is_not_supported_is_a_task_error_in_words(framework: Framework, what: str) -> None:
    offer = framework.offer()
    task = make_task(offer, "true")
    operation: dict[str, Any] = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    if what == "executor":
        del task["command"]
        task["executor"] = {"executor_id": {"value": "e"}}
    elif what == "health_check":
        task["health_check"] = {"type": "COMMAND"}
    else:
        group = {"executor": {"executor_id": {"value": "e"}}, "task_group": {"tasks": [task]}}
        operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    framework.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": [operation]})
    status = refusal(framework)
    assert status["state"] == "TASK_ERROR"
    assert "not supported by local Mesos" in status["message"]
    assert ("GROUP" in status["reason"]) is (what == "group")


def test_a_declined_offer_comes_back_when_its_filter_ends(framework: Framework) -> None:
    offer = framework.offer()
    wait_s = framework.cluster.allocation_s + 0.2
    declined = {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": wait_s}}
    before = time.monotonic()
    framework.call("DECLINE", decline=declined)
    again = framework.offer()
    assert time.monotonic() - before >= wait_s - 0.05
    assert again["resources"] == offer["resources"]


@pytest.mark.local_mesos("freed-at-once")
def test_more_than_was_refused_is_offered_despite_the_filter_and_at_once(
    framework: Framework,
) -> None:
    task = framework.launch("sleep 100", cpus=1)
    whole = cpus_of(framework.seen[-1]["offers"]["offers"][0])
    framework.run_until(task, "TASK_RUNNING")
    framework.none(is_offers, 2 * framework.cluster.allocation_s)
    framework.call("KILL", kill={"task_id": task["task_id"]})
    framework.run_until(task)
    before = time.monotonic()
    assert cpus_of(framework.offer()) == pytest.approx(whole)
    assert time.monotonic() - before < 0.5


def test_revive_clears_filters(framework: Framework) -> None:
    offer = framework.offer()
    declined = {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 600}}
    framework.call("DECLINE", decline=declined)
    framework.none(is_offers, 2 * framework.cluster.allocation_s)
    framework.call("REVIVE")
    assert framework.offer()["resources"] == offer["resources"]


def test_a_suppressed_framework_gets_no_offers_until_it_revives(framework: Framework) -> None:
    offer = framework.offer()
    framework.call("SUPPRESS")
    declined = {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0}}
    framework.call("DECLINE", decline=declined)
    framework.none(is_offers, 2 * framework.cluster.allocation_s + 0.2)
    framework.call("REVIVE")
    assert framework.offer()


def test_an_unanswered_offer_keeps_its_resources_from_others(make_framework: Make) -> None:
    first = make_framework().subscribe()
    offer = first.offer()
    second = make_framework().subscribe()
    second.none(is_offers, 2 * first.cluster.allocation_s)
    declined = {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 600}}
    first.call("DECLINE", decline=declined)
    assert second.offer()["resources"] == offer["resources"]


@pytest.mark.local_mesos("periods")
def test_an_offer_is_rescinded_after_the_offer_timeout(
    start_local: Callable[..., Cluster], make_framework: Make
) -> None:
    framework = make_framework(start_local("--offer-timeout-s", "0.3")).subscribe()
    offer = framework.offer()
    rescinded = framework.until(lambda event: event["type"] == "RESCIND")
    assert rescinded["rescind"]["offer_id"] == offer["id"]
    framework.accept([offer], [make_task(offer, "true")])
    assert refusal(framework)["reason"] == "REASON_INVALID_OFFERS"


@pytest.mark.local_mesos("periods")
def test_several_agents_have_ids_ports_and_resources_of_their_own(
    start_local: Callable[..., Cluster], make_framework: Make
) -> None:
    cluster = start_local("--agents", "3")
    assert len(set(cluster.agents().values())) == 3
    framework = make_framework(cluster).subscribe()
    offers: list[dict[str, Any]] = []
    while len(offers) < 3:
        offers += framework.until(is_offers)["offers"]["offers"]
    assert len({offer["agent_id"]["value"] for offer in offers}) == 3
    assert len({offer["hostname"] for offer in offers}) == 3
    task = make_task(offers[0], "true")
    framework.accept(offers[:2], [task])
    assert "one single agent" in refusal(framework)["message"]
