"""One `scale up` for all acceptance tests that speak HTTP only."""

from collections.abc import Iterator

import pytest
from stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("home", numbered=True)) as started:
        yield started
