"""The cluster under test and frameworks on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contract_cluster
import pytest
from contract_cluster import Cluster
from contract_framework import Framework

# Short periods: resends after 0.3, 0.6, ... s stand for 10, 20, ... s.
SHORT = (
    *("--ack-retry-s", "0.3", "--heartbeat-s", "0.5", "--allocation-interval-s", "0.2"),
    *("--cpus", "4", "--mem", "4096", "--disk", "10000", "--shutdown-grace-s", "0.5"),
)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if contract_cluster.ONLY_GIVEN:
        yield contract_cluster.given()
        return
    started = contract_cluster.start(tmp_path_factory.mktemp("mesos"), *SHORT)
    yield started
    started.stop()


@pytest.fixture
def start_local(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start local Mesos with options of one's own; it is stopped after the test."""
    started: list[Cluster] = []

    def start(*options: str) -> Cluster:
        made = contract_cluster.start(tmp_path, *SHORT, *options)
        started.append(made)
        return made

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def make_framework(
    cluster: Cluster, start_local: Callable[..., Cluster]
) -> Iterator[Callable[..., Framework]]:
    """Make frameworks; they leave before a cluster of the test's own stops."""
    made: list[Framework] = []

    def make(on: Cluster | None = None, **info: Any) -> Framework:
        made.append(Framework(on or cluster, **info))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def framework(make_framework: Callable[..., Framework]) -> Framework:
    """A subscribed, partition-aware framework."""
    return make_framework().subscribe()


@pytest.fixture(autouse=True)
def _local_only(request: pytest.FixtureRequest) -> None:
    """Skip what relies on a difference of local Mesos when another cluster is tested."""
    marker = request.node.get_closest_marker("local_mesos")
    if marker is not None:
        reason = contract_cluster.DIFFERENCES[marker.args[0]]
        if contract_cluster.ONLY_GIVEN:
            pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "local_mesos(difference): holds for local Mesos only")
