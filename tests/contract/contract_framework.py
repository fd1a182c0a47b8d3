"""A framework that speaks the v1 scheduler API with nothing but http.client."""

import http.client
import json
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from contract_cluster import Answer, Cluster, wait_for

Event = dict[str, Any]
TERMINAL = {
    f"TASK_{name}" for name in ("FINISHED", "FAILED", "KILLED", "ERROR", "LOST", "DROPPED", "GONE")
}


def scalar(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


class Framework:
    """One subscription at a time; events wait in `events`."""

    def __init__(self, cluster: Cluster, **info: Any) -> None:
        self.cluster = cluster
        self.info: dict[str, Any] = {
            "user": cluster.user,
            "name": "contract",
            "failover_timeout": 600.0,
            "checkpoint": True,
            "capabilities": [{"type": "PARTITION_AWARE"}],
            **({"principal": cluster.principal} if cluster.secret else {}),
            **info,
        }
        self.events: queue.Queue[Event] = queue.Queue()
        self.seen: list[Event] = []
        self.unused: list[dict[str, Any]] = []  # offers that no test has asked for yet
        self.framework_id = self.info.get("id", {}).get("value", "")
        self.stream_id = ""
        self._socket: socket.socket | None = None
        self._stream: http.client.HTTPResponse | None = None
        self._calls = http.client.HTTPConnection(cluster.master, timeout=20)
        self._reader: threading.Thread | None = None

    # --- the stream ---

    def open(self, **subscribe: Any) -> http.client.HTTPResponse:
        """Send SUBSCRIBE and return the raw answer."""
        if self.framework_id:
            self.info["id"] = {"value": self.framework_id}
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info, **subscribe}}
        if self.framework_id:
            call["framework_id"] = {"value": self.framework_id}
        connection = http.client.HTTPConnection(self.cluster.master, timeout=20)
        connection.connect()
        self._socket = connection.sock
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers.update(self.cluster.authorization)
        connection.request("POST", "/api/v1/scheduler", json.dumps(call), headers)
        return connection.getresponse()

    def subscribe(self, **subscribe: Any) -> "Framework":
        """Subscribe, take note of the ids and read events in the background."""
        self.disconnect()
        self._calls.close()
        self.unused.clear()
        self._stream = self.open(**subscribe)
        assert self._stream.status == 200, self._stream.read()
        self.stream_id = self._stream.headers["Mesos-Stream-Id"]
        self.events = queue.Queue()
        arguments = (self._stream, self.events)
        self._reader = threading.Thread(target=read_records, args=arguments, daemon=True)
        self._reader.start()
        first = self.next()
        if first["type"] == "SUBSCRIBED":
            self.framework_id = first["subscribed"]["framework_id"]["value"]
        return self

    def disconnect(self) -> None:
        """Close the stream from our side."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._reader is not None:
                self._reader.join(5)
            if self._stream is not None:
                self._stream.close()
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Tear the framework down and leave."""
        if self.framework_id and self.stream_id:
            with suppress(ConnectionError):  # the test may have killed its cluster
                self.call("TEARDOWN")
                wait_for(self.cluster.is_idle, "the end of the framework's tasks", 20)
        self.disconnect()
        self._calls.close()

    def next(self, seconds: float = 20.0) -> Event:
        try:
            event = self.events.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no event within {seconds} s; before: {self.seen[-3:]}") from None
        self.seen.append(event)
        if event["type"] == "OFFERS":
            self.unused += event["offers"]["offers"]
        return event

    def until(self, wanted: Callable[[Event], Any], seconds: float = 20.0) -> Event:
        """Return the next event that is wanted; others are passed over."""
        deadline = time.monotonic() + seconds
        while True:
            event = self.next(max(0.01, deadline - time.monotonic()))
            if wanted(event):
                return event

    def none(self, wanted: Callable[[Event], Any], seconds: float) -> None:
        """Fail if a wanted event comes within `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.events.get(timeout=left)
            except queue.Empty:
                return
            self.seen.append(event)
            assert not wanted(event), event

    # --- calls ---

    def call(self, kind: str, **fields: Any) -> Answer:
        """Send a call on the kept connection and return its answer."""
        body = {"type": kind, "framework_id": {"value": self.framework_id}, **fields}
        headers = {
            "Content-Type": "application/json",
            "Mesos-Stream-Id": self.stream_id,
            **self.cluster.authorization,
        }
        self._calls.request("POST", "/api/v1/scheduler", json.dumps(body), headers)
        got = self._calls.getresponse()
        return Answer(got.status, got.headers, got.read())

    def acknowledge(self, status: dict[str, Any]) -> None:
        if "uuid" in status:
            told = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
            assert self.call("ACKNOWLEDGE", acknowledge=told).status == 202

    # --- offers and tasks ---

    def offer(
        self, seconds: float = 20.0, *, cpus: float = 0.0, like: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the next offer with at least `cpus`; of the agent of the offer or task `like`."""
        deadline = time.monotonic() + seconds
        while True:
            for offer in self.unused:
                same = like is None or offer["agent_id"] == like["agent_id"]
                if same and cpus_of(offer) >= cpus:
                    self.unused.remove(offer)
                    return offer
            self.until(is_offers, deadline - time.monotonic())

    def accept(
        self, offers: Sequence[dict[str, Any]], tasks: Sequence[dict[str, Any]], refuse: float = 0.0
    ) -> Answer:
        operation = {"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}
        accepted = {
            "offer_ids": [offer["id"] for offer in offers],
            "operations": [operation],
            "filters": {"refuse_seconds": refuse},
        }
        answer = self.call("ACCEPT", accept=accepted)
        assert answer.status == 202, answer
        return answer

    def launch_on(
        self, offer: dict[str, Any], what: str | dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        """Launch one task on an offer, decline the rest for long; return its TaskInfo."""
        task = make_task(offer, what, **more)
        self.accept([offer], [task], refuse=600.0)
        return task

    def launch(
        self, what: str | dict[str, Any], *, like: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Launch one task on the next offer, of the agent of the task `like`."""
        offer = self.offer(cpus=more.get("cpus", 0.1), like=like)
        return self.launch_on(offer, what, **more)

    def decline(self, offer: dict[str, Any], refuse: float | str | None = 0.0) -> None:
        """Decline one offer; without a filter if `refuse` is None."""
        filters = {} if refuse is None else {"filters": {"refuse_seconds": refuse}}
        declined = {"offer_ids": [offer["id"]], **filters}
        assert self.call("DECLINE", decline=declined).status == 202

    def status(self, task: dict[str, Any], seconds: float = 20.0) -> dict[str, Any]:
        """Return the next update of a task, without acknowledging it."""
        task_id = task["task_id"]
        event = self.until(
            lambda e: e["type"] == "UPDATE" and e["update"]["status"]["task_id"] == task_id, seconds
        )
        return dict(event["update"]["status"])

    def run_until(
        self, task: dict[str, Any], *states: str, seconds: float = 20.0
    ) -> dict[str, Any]:
        """Acknowledge updates of a task until it is in one of `states` (default: any end)."""
        while True:
            status = self.status(task, seconds)
            self.acknowledge(status)
            if status["state"] in (states or TERMINAL):
                return status

    def sandbox(self, task: dict[str, Any]) -> str:
        task_id = task["task_id"]["value"]
        return f"/frameworks/{self.framework_id}/executors/{task_id}/runs/latest"

    def output(self, task: dict[str, Any], name: str = "stdout") -> str:
        """Return what a task wrote."""
        return self.cluster.read(task["agent_id"]["value"], f"{self.sandbox(task)}/{name}")


def make_task(offer: dict[str, Any], what: str | dict[str, Any], **more: Any) -> dict[str, Any]:
    task_id = more.pop("task_id", f"t-{uuid.uuid4()}")
    cpus, mem = more.pop("cpus", 0.1), more.pop("mem", 32)
    made = {"value": what, "shell": True} if isinstance(what, str) else what
    made.update(more.pop("command", {}))
    return {
        "name": task_id,
        "task_id": {"value": task_id},
        "agent_id": offer["agent_id"],
        "resources": [scalar("cpus", cpus), scalar("mem", mem)],
        "command": made,
        **more,
    }


def cpus_of(offer: dict[str, Any]) -> float:
    return float(sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus"))


def is_offers(event: Event) -> bool:
    return bool(event["type"] == "OFFERS")


def is_update(event: Event) -> bool:
    return bool(event["type"] == "UPDATE")


def read_records(stream: http.client.HTTPResponse, into: "queue.Queue[Event]") -> None:
    """Read RecordIO until the stream ends; the end is an event of type CLOSED."""
    buffer = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while data := stream.read1(65536):
            buffer += data
            while b"\n" in buffer:
                length, _, rest = buffer.partition(b"\n")
                if len(rest) < int(length):
                    break
                into.put(json.loads(rest[: int(length)]))
                buffer = rest[int(length) :]
    into.put({"type": "CLOSED"})
