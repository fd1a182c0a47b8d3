from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.core.errors import NotEnoughResources
from scale.core.resources import Resources

AMOUNT = st.integers(0, 10**9)
RESOURCES = st.builds(Resources, AMOUNT, AMOUNT, AMOUNT)


@given(RESOURCES, RESOURCES, RESOURCES)
def test_amounts_add_up_exactly(a: Resources, b: Resources, c: Resources) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert (a + b) - b == a
    assert a + Resources() == a


@given(RESOURCES, RESOURCES)
def test_what_fits_can_be_taken_and_what_does_not_cannot(a: Resources, b: Resources) -> None:
    if b.fits_in(a):
        assert (a - b).fits_in(a)
    else:
        with pytest.raises(NotEnoughResources, match="from"):
            a - b


@given(RESOURCES, RESOURCES)
def test_a_part_fits_in_the_whole(a: Resources, b: Resources) -> None:
    assert a.fits_in(a + b)
    assert (a + b).fits_in(a) == (b == Resources())


@pytest.mark.parametrize(
    "short", [Resources(999, 1, 1), Resources(1000, 0, 1), Resources(1000, 1, 0)]
)
def test_every_kind_must_fit(short: Resources) -> None:
    assert short.fits_in(Resources(1000, 1, 1))
    assert not Resources(1000, 1, 1).fits_in(short)


@pytest.mark.parametrize("amounts", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_nothing_is_negative(amounts: tuple[int, int, int]) -> None:
    with pytest.raises(NotEnoughResources, match="negative"):
        Resources(*amounts)


def test_resources_are_values() -> None:
    one = Resources(1, 2, 3)
    assert {one: "x"}[Resources(1, 2, 3)] == "x"
    with pytest.raises(FrozenInstanceError):
        one.mem_mib = 5  # type: ignore[misc]
