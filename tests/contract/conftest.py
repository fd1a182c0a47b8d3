"""The cluster under test and frameworks on it.

Without more it is a local Mesos of the suite's own. SCALE_TEST_MESOS_MASTER=host:port names another
cluster, SCALE_TEST_MESOS_PRINCIPAL and SCALE_TEST_MESOS_SECRET how to get in, SCALE_TEST_MESOS_USER
whom its tasks run as (without it, our own user). Half a core and 300 MiB on each agent are enough.
Agents must reach us to fetch files, nothing else may start tasks there meanwhile, its periods are
taken to be Mesos' own. contract_cluster.DIFFERENCES is the list of what then is not tested.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import contract_cluster
import pytest
from contract_cluster import SHORT, Cluster, wait_for
from contract_framework import Framework
from contract_parts import TIMES, Parts


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if contract_cluster.ONLY_GIVEN:
        yield contract_cluster.given()
        return
    started = contract_cluster.start(tmp_path_factory.mktemp("mesos"), *contract_cluster.SHORT)
    yield started
    started.stop()


@pytest.fixture
def start_local(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start local Mesos with options of one's own; it is stopped after the test."""
    started: list[Cluster] = []

    def start(*options: str, **env: str) -> Cluster:
        made = contract_cluster.start(tmp_path, *contract_cluster.SHORT, *options, **env)
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


@pytest.fixture(scope="module")
def one_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    if contract_cluster.ONLY_GIVEN:
        pytest.skip(contract_cluster.DIFFERENCES["parts"])
    cluster = contract_cluster.start(tmp_path_factory.mktemp("parts"), *SHORT, *TIMES)
    yield Parts(cluster)
    cluster.stop()


@pytest.fixture
def parts(one_agent: Parts) -> Iterator[Parts]:
    """A cluster whose parts may be killed, and are there again for the next test."""
    yield one_agent
    for pid in filter(None, one_agent.announced["pids"]["agents"]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_for(one_agent.whole, "all parts", 40)


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
