"""Section 2 and ACCEPT: what is offered when, and what may be launched on it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from contract_cluster import ONLY_GIVEN, Cluster
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
    assert {"cpus", "mem"} <= {r["name"] for r in offer["resources"]}


def test_an_offer_that_was_declined_is_stale_and_drops_its_tasks(make_framework: Make) -> None:
    for kinds, state in (([{"type": "PARTITION_AWARE"}], "TASK_DROPPED"), ([], "TASK_LOST")):
        framework = make_framework(capabilities=kinds).subscribe()
        offer = framework.offer()
        framework.decline(offer)
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


@pytest.mark.parametrize("other", ["no-such-offer", "twice"])
def test_one_invalid_offer_makes_the_whole_accept_invalid(framework: Framework, other: str) -> None:
    offer = framework.offer()
    invalid = offer if other == "twice" else {"id": {"value": other}}
    tasks = [make_task(offer, "true"), make_task(offer, "true")]
    framework.accept([offer, invalid], tasks)
    assert [refusal(framework)["reason"] for _ in tasks] == ["REASON_INVALID_OFFERS"] * 2
    again = framework.offer(like=offer)
    assert (again["id"] != offer["id"], again["resources"]) == (True, offer["resources"])


@pytest.mark.parametrize("operations", [[], [{"type": "LAUNCH", "launch": {"task_infos": []}}]])
def test_an_accept_without_tasks_is_a_decline(
    framework: Framework, operations: list[dict[str, Any]]
) -> None:
    offer = framework.offer()
    accepted = {
        "offer_ids": [offer["id"]],
        "operations": operations,
        "filters": {"refuse_seconds": 0},
    }
    assert framework.call("ACCEPT", accept=accepted).status == 202
    assert framework.offer(like=offer)["resources"] == offer["resources"]


def test_the_tasks_of_one_accept_share_what_was_offered(framework: Framework) -> None:
    offer = framework.offer()
    cpus = round(cpus_of(offer) * 0.6, 1)
    tasks = [make_task(offer, "true", cpus=cpus) for _ in range(2)]
    framework.accept([offer], tasks)
    status = refusal(framework)
    assert (status["task_id"], status["state"]) == (tasks[1]["task_id"], "TASK_ERROR")
    assert "is more than available" in status["message"]
    assert framework.run_until(tasks[0])["state"] == "TASK_FINISHED"


def test_what_a_task_leaves_is_offered_to_three_decimals(framework: Framework) -> None:
    offer = framework.offer()
    task = make_task(offer, "sleep 100", cpus=0.1004)
    framework.accept([offer], [task])
    assert cpus_of(framework.offer(like=offer)) == round(cpus_of(offer) - 0.1, 3)


def test_two_offers_of_one_agent_can_be_used_together(framework: Framework) -> None:
    first = framework.offer()
    cpus = cpus_of(first)
    held = make_task(first, "sleep 100", cpus=cpus / 2)
    framework.accept([first], [held], refuse=0)
    rest = framework.offer(like=first)
    framework.call("KILL", kill={"task_id": held["task_id"]})
    framework.run_until(held)
    freed = framework.offer(like=first)
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
        (
            bad(max_completion_time={"nanoseconds": -1}),
            "Task's `max_completion_time` must be non-negative",
        ),
        (bad(limits={"cpus": {"value": 0.01}}), ""),
        (bad(limits={"disk": {"value": 100}}), ""),
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
    again = framework.launch("true", task_id=task["name"], like=task)
    assert framework.run_until(again)["message"] == f"Task has duplicate ID: {task['name']}"


def test_zero_cpus_and_numbers_as_text_are_accepted(framework: Framework) -> None:
    task = framework.launch("true", cpus=0, mem="32")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


def test_numbers_and_booleans_as_text_nulls_and_unknown_fields_are_accepted(
    framework: Framework,
) -> None:
    command = {"value": "echo in a shell; sleep 100", "shell": "true", "user": None, "novel": [1]}
    life = {"nanoseconds": "1000000000"}
    task = framework.launch(command, mem="32.0", max_completion_time=life, container=None)
    assert framework.run_until(task)["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"
    assert framework.output(task) == "in a shell\n"


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


@pytest.mark.local_mesos("unsupported")
def test_a_reservation_is_dropped_and_what_comes_after_it_goes_on(framework: Framework) -> None:
    offer = framework.offer()
    task = make_task(offer, "true")
    operations = [
        {"type": "RESERVE", "reserve": {"resources": [scalar("cpus", 0.1, role="mine")]}},
        {"type": "LAUNCH", "launch": {"task_infos": [task]}},
    ]
    framework.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": operations})
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


@pytest.mark.parametrize("refuse", [None, 0.0, 1.2, "1.2"])
def test_a_declined_offer_comes_back_when_its_filter_ends(
    framework: Framework, refuse: float | str | None
) -> None:
    offer = framework.offer()
    before = time.monotonic()
    framework.decline(offer, refuse)
    again = framework.offer(like=offer)
    # Without a filter it is 5 s. What is due waits for the next allocation, and we may be slow.
    wait_s = 5.0 if refuse is None else float(refuse)
    spent_s = time.monotonic() - before
    assert wait_s - 0.05 <= spent_s < wait_s + 2 * framework.cluster.allocation_s + 1.5
    assert again["resources"] == offer["resources"]


def test_more_than_was_refused_is_offered_despite_the_filter(framework: Framework) -> None:
    offer = framework.offer()
    whole = cpus_of(offer)
    task = framework.launch_on(offer, "sleep 100", cpus=whole / 2)
    framework.run_until(task, "TASK_RUNNING")
    framework.none(is_offers, 2 * framework.cluster.allocation_s)
    framework.call("KILL", kill={"task_id": task["task_id"]})
    framework.run_until(task)
    assert cpus_of(framework.offer(like=offer)) == pytest.approx(whole)


@pytest.mark.local_mesos("freed-at-once")
def test_what_a_task_frees_is_offered_at_once(
    start_local: Callable[..., Cluster], make_framework: Make
) -> None:
    framework = make_framework(start_local("--allocation-interval-s", "60")).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("KILL", kill={"task_id": task["task_id"]})
    framework.run_until(task)
    assert framework.offer(5)


def test_revive_clears_filters(framework: Framework) -> None:
    offer = framework.offer()
    framework.decline(offer, 600)
    framework.none(is_offers, 2 * framework.cluster.allocation_s)
    framework.call("REVIVE")
    assert framework.offer(like=offer)["resources"] == offer["resources"]


def test_a_suppressed_framework_gets_no_offers_until_it_revives(framework: Framework) -> None:
    offer = framework.offer()
    framework.call("SUPPRESS")
    framework.decline(offer)
    framework.none(is_offers, 2 * framework.cluster.allocation_s + 0.2)
    framework.call("REVIVE", revive={"roles": ["*", "not-mine"]})
    framework.none(is_offers, framework.cluster.allocation_s + 0.2)
    framework.call("REVIVE")
    assert framework.offer(like=offer)


def test_an_offer_from_before_the_suppression_stays_valid(framework: Framework) -> None:
    offer = framework.offer()
    framework.call("SUPPRESS")
    task = framework.launch_on(offer, "true")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


def test_a_suppression_does_not_outlive_the_subscription(framework: Framework) -> None:
    framework.offer()
    framework.call("SUPPRESS")
    framework.subscribe()
    assert framework.offer()


def test_too_little_is_not_offered(framework: Framework) -> None:
    offer = framework.offer()
    mem = sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "mem")
    task = make_task(offer, "sleep 100", cpus=cpus_of(offer), mem=mem - 31)
    framework.accept([offer], [task])
    framework.run_until(task, "TASK_RUNNING")
    with pytest.raises(AssertionError, match="no event within"):
        framework.offer(2 * framework.cluster.allocation_s + 0.2, like=offer)


def test_an_unanswered_offer_keeps_its_resources_from_others(make_framework: Make) -> None:
    first = make_framework().subscribe()
    offer = first.offer()
    second = make_framework().subscribe()
    second.none(is_offers, 2 * first.cluster.allocation_s)
    first.decline(offer, 600)
    assert second.offer(like=offer)["resources"] == offer["resources"]


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


def test_agents_have_ids_and_addresses_of_their_own_and_an_accept_is_for_one_of_them(
    request: pytest.FixtureRequest, make_framework: Make
) -> None:
    if ONLY_GIVEN:
        cluster = request.getfixturevalue("cluster")
    else:
        cluster = request.getfixturevalue("start_local")("--agents", "3")
    count = len(cluster.agents())
    if count < 2:
        pytest.skip("this cluster has one agent only")
    assert len(set(cluster.agents().values())) == count
    framework = make_framework(cluster).subscribe()
    offers: list[dict[str, Any]] = []
    while len(offers) < count:
        offers += framework.until(is_offers)["offers"]["offers"]
    assert {offer["agent_id"]["value"] for offer in offers} == set(cluster.agents())
    task = make_task(offers[0], "true")
    framework.accept(offers[:2], [task])
    assert "one single agent" in refusal(framework)["message"]
