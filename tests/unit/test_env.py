"""Settings are checked whole, and a bad one stops the start with its name and without its value."""

from collections.abc import Callable

import pytest

from scale.env import (
    BadSettings,
    Environment,
    boolean,
    database_url,
    integer,
    mesos_master,
    number,
    one_of,
    url,
    words,
)


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    env = Environment({"A": "x", "B": "5", "SECRET_URL": "mysql://ada:secret@host/db"})
    assert env("A", integer(least=1, most=3), 2) == 2
    assert env("B", integer(least=1, most=9), 2) == 5
    env("SECRET_URL", database_url)
    env("MISSING", str)
    env.refuse("C", "goes with B")
    with pytest.raises(BadSettings) as stopped:
        env.check()
    lines = str(stopped.value).splitlines()
    assert lines[0] == "Scale cannot start:"
    assert [line.strip().partition(" ")[0].rstrip(":") for line in lines[1:]] == [
        "A",
        "SECRET_URL",
        "MISSING",
        "C",
    ]
    assert "secret" not in str(stopped.value)


def test_a_good_environment_starts() -> None:
    env = Environment({"NAME": "x"})
    assert (env("NAME", str), env("OTHER", str, "y")) == ("x", "y")
    env.check()


def test_an_empty_variable_is_as_good_as_none() -> None:
    env = Environment({"N": ""})
    assert env("N", integer(least=1, most=3), 2) == 2
    env("N", str)
    with pytest.raises(BadSettings, match="N must be set"):
        env.check()


@pytest.mark.parametrize(
    ("cast", "text", "value"),
    [
        (boolean, "Yes", True),
        (boolean, "off", False),
        (words, "a, b,,c ", ["a", "b", "c"]),
        (integer(least=1, most=9), "9", 9),
        (number(least=0, most=9), "0.5", 0.5),
        (one_of("a", "b"), "b", "b"),
        (url("http"), "http://host:80/x/", "http://host:80/x"),
        (mesos_master, "host:5050", "host:5050"),
        (mesos_master, "zk://a:1,b:2/mesos", "zk://a:1,b:2/mesos"),
    ],
)
def test_good_values_are_read(cast: object, text: str, value: object) -> None:
    assert cast(text) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("cast", "text"),
    [
        (boolean, "perhaps"),
        (integer(least=1, most=9), "0"),
        (integer(least=1, most=9), "10"),
        (integer(least=1, most=9), "1.5"),
        (number(least=0, most=9), "nan"),
        (number(least=0, most=9), "inf"),
        (number(least=0, most=9), "-0.1"),
        (one_of("a", "b"), "c"),
        (url("http"), "ftp://host"),
        (url("http"), "http://"),
        (url("http"), "host:80"),
        (mesos_master, "host"),
        (mesos_master, ":5050"),
        (mesos_master, "host:port"),
        (mesos_master, "http://host:5050"),
        (mesos_master, "zk://a:1"),
        (database_url, "postgresql://host"),
        (database_url, "sqlite:///x"),
        (database_url, "postgresql://host:port/name"),
    ],
)
def test_bad_values_are_refused(cast: object, text: str) -> None:
    with pytest.raises(ValueError):
        cast(text)  # type: ignore[operator]


@pytest.mark.parametrize("cast", [database_url, url("postgresql")])
@pytest.mark.parametrize("host", ["h\N{ACCOUNT OF}st", "[::1"], ids=["not a host", "half an IPv6"])
def test_a_url_that_cannot_be_read_is_refused_without_its_password(
    cast: Callable[[str], object], host: str
) -> None:
    with pytest.raises(ValueError, match="must be ") as refused:
        cast(f"postgresql://ada:secret@{host}/scale")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://ada:p%40ss@db:5433/scale",
            {"USER": "ada", "PASSWORD": "p@ss", "HOST": "db", "PORT": "5433", "NAME": "scale"},
        ),
        (
            "postgres:///scale?host=/run/my%20pg&user=ada&sslmode=require",
            {
                "USER": "ada",
                "HOST": "/run/my pg",
                "NAME": "scale",
                "OPTIONS": {"sslmode": "require"},
            },
        ),
    ],
)
def test_a_database_url_becomes_an_entry_of_django(text: str, expected: dict[str, object]) -> None:
    entry = database_url(text)
    assert {key: entry[key] for key in expected} == expected
