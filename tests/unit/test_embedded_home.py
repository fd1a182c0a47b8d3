"""SCALE_HOME: who may use it, what it remembers, where sockets go."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scale.embedded import home as module
from scale.embedded.errors import CannotStart
from scale.embedded.guard import Guard
from scale.embedded.home import Home, default_home, is_free
from scale.embedded.listener import base_url, listen


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_closed_to_others_even_if_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    home = Home(tmp_path / "home")
    home.make()
    assert mode(home.path) == mode(home.mesos) == 0o700


def test_a_folder_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"SCALE_HOME .*/file/home cannot be used: Not a dir"):
        Home(tmp_path / "file" / "home").make()


def test_the_default_is_in_the_users_own_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_home({}) == Path("/home/someone/.local/share/scale")
    assert default_home({"SCALE_HOME": "/srv/scale"}) == Path("/srv/scale")


def test_a_second_run_is_refused_and_told_who_holds_the_folder(home: Home) -> None:
    refusal = rf"{home.path} is in use by another `scale up` \(process {os.getpid()}\)"
    with home.lock(), pytest.raises(CannotStart, match=refusal), Home(home.path).lock():
        pass
    with home.lock():
        pass


def leave_a_child(home: Home) -> int:
    """Let a process take the lock, start a child, and die; return the child's pid."""
    script = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from scale.embedded.home import Home\n"
        "with Home(Path(sys.argv[1])).lock() as lock:\n"
        "    child = subprocess.Popen(['sleep', '100'], pass_fds=[lock], stdout=2)\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, home.path], stdout=subprocess.PIPE)
    return int(done.stdout)


def test_what_a_killed_run_left_behind_is_waited_for(home: Home) -> None:
    child = leave_a_child(home)
    began = time.monotonic()
    ender = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill {child}"])
    with home.lock():
        assert time.monotonic() - began > 0.1
    ender.wait()


def test_leftovers_that_do_not_end_are_reason_to_refuse(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEFTOVERS_END_WITHIN_S", 0.1)
    child = leave_a_child(home)
    try:
        with pytest.raises(CannotStart, match="still in use by what process"), home.lock():
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_sockets_are_in_the_home_where_its_path_is_short() -> None:
    folder = Path(module.tempfile.mkdtemp(prefix="s-"))
    try:
        with Home(folder).sockets() as sockets:
            assert sockets == folder / "run"
            assert mode(sockets) == 0o700
    finally:
        module.shutil.rmtree(folder)


def test_sockets_of_a_deep_home_are_in_a_private_folder_that_goes_away(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 25))
    home.make()
    with home.sockets() as first:
        assert len(os.fsencode(first)) < 90
        assert mode(first) == 0o700
    assert not first.exists()


def test_the_private_folder_of_a_killed_run_is_used_again(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 25))
    home.make()
    killed = home.sockets()
    first = killed.__enter__()
    with home.sockets() as second:
        assert second == first


def test_a_private_folder_that_became_a_link_is_not_trusted(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 25))
    home.make()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (home.path / "run-folder").write_text(str(tmp_path / "link"))
    with home.sockets() as sockets:
        assert sockets != tmp_path / "link"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_private_folder_that_belongs_to_another_is_not_trusted(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 25))
    home.make()
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    (home.path / "run-folder").write_text(str(tmp_path / "theirs"))
    with home.sockets() as sockets:
        assert sockets != tmp_path / "theirs"


def test_the_secret_key_is_made_once_and_is_private(home: Home) -> None:
    first = home.secret_key()
    assert len(first) > 50
    assert home.secret_key() == first
    assert mode(home.path / "secret_key") == 0o600


def test_the_token_is_private(home: Home) -> None:
    home.write_token("abc")
    assert home.token.read_text() == "abc\n"
    assert mode(home.token) == 0o600


def test_ports_are_remembered_and_nonsense_is_not(home: Home) -> None:
    assert home.ports() == (0, 0)
    home.remember_ports((5050, 5051))
    assert home.ports() == (5050, 5051)
    (home.path / "ports.json").write_text("[1]")
    assert home.ports() == (0, 0)


def test_only_what_is_ours_is_kept_of_the_environment(home: Home) -> None:
    home.write_environment({"SCALE_API_URL": "x", "DATABASE_URL": "y", "AWS_SECRET": "z"})
    assert home.environment() == {"SCALE_API_URL": "x", "DATABASE_URL": "y"}
    assert mode(home.path / "environment.json") == 0o600


def test_a_taken_port_is_refused_with_its_number() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(CannotStart, match=rf"127\.0\.0\.1 port {port}: Address already in use"):
            listen("127.0.0.1", port)


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on 203\.0\.113\.1"):
        listen("203.0.113.1", 0)


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")]
)
def test_the_url_is_one_that_this_machine_can_reach(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        assert base_url(listener) == f"{url}{listener.getsockname()[1]}"


def test_a_guarded_child_dies_with_its_parent() -> None:
    script = (
        "import os, signal, subprocess; from scale.embedded.guard import Guard\n"
        "guard = Guard(signal.SIGTERM)\n"
        "child = subprocess.Popen(['sleep', '100'], preexec_fn=guard.preexec(), stdout=2)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE)
    child, deadline = int(done.stdout), time.monotonic() + 30
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_guard_whose_parent_is_gone_already_does_not_let_the_program_begin() -> None:
    become = Guard(signal.SIGTERM).preexec()

    def as_orphan() -> None:
        os.getppid = lambda: 0  # between fork and exec: only the child sees it
        become()

    assert subprocess.call(["true"], preexec_fn=as_orphan) == 126


def _lives(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
