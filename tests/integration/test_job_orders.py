"""The command lines, run by a real shell, and what the tasks are told."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pytest_django import Settings
from scheduled import NOON, make_type, submit

from scale.core.cluster import TaskSpec
from scale.job.models import File, JobExecution
from scale.job.orders import (
    assign,
    cleanup_task,
    files_of,
    phase_limit,
    recipe_of,
    staged_inputs,
    steps_orders,
    work_dir,
)
from scale.job.tokens import issue, task_of
from scale.steps.limits import Limits
from scale.steps.retry import LONGEST_PAUSE_S

pytestmark = pytest.mark.django_db
SHELLS = [path for name in ("sh", "dash", "bash") if (path := shutil.which(name))]
WORD_COUNT: Mapping[str, Any] = {
    "command": "sh",
    "command_arguments": '-c \'wc -w "$1" | tee "$SCALE_OUTPUT_DIR/count.txt"; sleep "$2"\''
    " - ${text} ${pause}",
    "input_data": [
        {"name": "text", "type": "file"},
        {
            "name": "pause",
            "type": "property",
            "value_type": "number",
            "required": False,
            "default": 0,
        },
    ],
    "output_data": [{"name": "count", "type": "file", "pattern": "count.txt"}],
}
SHOW = r"""-c 'printf "%s\n" "$@"' - """
NASTY = [
    "plain",
    "",
    "two words",
    "it's",
    '"double"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "a\nb",
    "--flag",
    "*",
    "~",
    "${HOME}",
    "\\",
    "ü",
    "x=1",
    "2>out",
]


@pytest.fixture(autouse=True)
def work_root(settings: Settings, tmp_path: Path) -> Path:
    settings.SCALE_AGENT_WORK_DIR = tmp_path / "work of scale"
    settings.SCALE_API_URL = "https://scale.example"
    settings.SCALE_AGENT_PYTHON = "/opt/my python/bin/python3"
    return tmp_path


@pytest.fixture
def make_file(db: None) -> Callable[..., File]:
    def make(name: str = "a.txt", size: int = 10) -> File:
        return File.objects.create(
            name=name,
            size=size,
            media_type="text/plain",
            sha256="ab" * 32,
            storage_name=f"x/{File.objects.count()}",
            created=NOON,
        )

    return make


def task_for(execution: JobExecution, phase: str = "job") -> TaskSpec:
    execution = JobExecution.objects.select_related("job__job_type", "job__job_type_rev").get(
        pk=execution.pk
    )
    execution.phase = phase
    recipe = recipe_of(execution.job.job_type_rev)
    return assign(execution, recipe, agent_id="a1", files=files_of([execution])).task


def run(task: TaskSpec, shell: str, sandbox: Path) -> subprocess.CompletedProcess[str]:
    """Run a task's command as an agent does: `sh -c`, in the sandbox, with nothing else set."""
    sandbox.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "MESOS_SANDBOX": str(sandbox), **task.environment}
    return subprocess.run(
        [shell, "-c", task.command],
        cwd=sandbox,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )


def printing(interface_inputs: list[dict[str, Any]], arguments: str, **fields: Any) -> Any:
    return make_type(
        {"command": "sh", "command_arguments": SHOW + arguments, "input_data": interface_inputs},
        **fields,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_every_value_reaches_the_command_as_one_word(shell: str, tmp_path: Path) -> None:
    inputs = [{"name": f"v{n}", "type": "property"} for n in range(len(NASTY))]
    job_type = printing(inputs, " ".join(f"${{{each['name']}}}" for each in inputs))
    execution = submit(job_type, {f"v{n}": value for n, value in enumerate(NASTY)})
    done = run(task_for(execution), shell, tmp_path / "sandbox")
    assert done.stdout == "".join(f"{value}\n" for value in NASTY)
    assert list((tmp_path / "sandbox").iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_flags_come_with_their_values_and_vanish_with_them(shell: str, tmp_path: Path) -> None:
    inputs = [{"name": name, "type": "property", "required": False} for name in ("a", "b")]
    job_type = printing(inputs, "[ ${-x :a} ${--long=:b} ]")
    done = run(task_for(submit(job_type, {"b": "1 2"})), shell, tmp_path / "sandbox")
    assert done.stdout.split("\n") == ["[", "--long=1 2", "]", ""]


def test_numbers_and_booleans_are_written_as_in_json(tmp_path: Path) -> None:
    kinds = [("number", 5), ("number", 0.25), ("boolean", True), ("boolean", False)]
    inputs = [
        {"name": f"v{n}", "type": "property", "value_type": kind}
        for n, (kind, _) in enumerate(kinds)
    ]
    job_type = printing(inputs, "${v0} ${v1} ${v2} ${v3}")
    execution = submit(job_type, {f"v{n}": value for n, (_, value) in enumerate(kinds)})
    assert run(task_for(execution), "sh", tmp_path / "s").stdout.split() == [
        "5",
        "0.25",
        "true",
        "false",
    ]


def environment_seen(done: subprocess.CompletedProcess[str]) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_a_job_of_one_phase_works_in_its_sandbox(tmp_path: Path) -> None:
    job_type = make_type(
        {
            "command": "env; pwd >here",
            "input_data": [{"name": "my-input", "type": "property"}],
        },
        environment={"COLOR": "dark red"},
    )
    execution = submit(job_type, {"my-input": "5 $x"})
    sandbox = tmp_path / "a sand box"
    seen = environment_seen(run(task_for(execution), "sh", sandbox))
    assert (sandbox / "here").read_text() == f"{sandbox}\n"
    assert seen["COLOR"] == "dark red"
    assert seen["SCALE_INPUT_MY_INPUT"] == "5 $x"
    assert (seen["SCALE_JOB_ID"], seen["SCALE_EXECUTION_ID"]) == (
        str(execution.job_id),
        str(execution.pk),
    )
    assert seen["SCALE_INPUT_DIR"] == seen["SCALE_OUTPUT_DIR"] == str(sandbox)
    assert "SCALE_EXECUTION_TOKEN" not in seen


def test_the_word_count_of_the_tour_counts(tmp_path: Path, make_file: Callable[..., File]) -> None:
    file = make_file("my text.txt")
    execution = submit(make_type(WORD_COUNT), {"text": {"file_id": file.pk}})
    folder = Path(work_dir(execution))
    (folder / "inputs/text").mkdir(parents=True)
    (folder / "outputs").mkdir()
    (folder / "inputs/text/my text.txt").write_text("one two three\n")
    done = run(task_for(execution), "sh", tmp_path / "sandbox")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "outputs/count.txt").read_text().split()[0] == "3"


def test_a_job_with_files_works_in_its_work_folder(tmp_path: Path) -> None:
    job_type = make_type(
        {
            "command": "env; pwd; echo",
            "command_arguments": "${job_output_dir}",
            "output_data": [{"name": "out", "type": "file"}],
        }
    )
    execution = submit(job_type)
    task = task_for(execution)
    assert run(task, "sh", tmp_path / "sandbox").returncode == 125, "there is no such folder yet"
    folder = Path(work_dir(execution))
    folder.mkdir(parents=True)
    done = run(task, "sh", tmp_path / "sandbox")
    assert done.stdout.splitlines()[-2:] == [str(folder), f"{folder}/outputs"]
    seen = environment_seen(done)
    assert seen["SCALE_OUTPUT_DIR"] == f"{folder}/outputs"
    assert seen["SCALE_INPUT_DIR"] == f"{folder}/inputs"


def test_the_exit_code_of_the_command_is_that_of_the_line(tmp_path: Path) -> None:
    execution = submit(make_type({"command": "exit", "command_arguments": "7"}))
    assert run(task_for(execution), "sh", tmp_path / "sandbox").returncode == 7


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_steps_get_their_program_and_a_token_for_this_task_only(phase: str, tmp_path: Path) -> None:
    execution = submit(make_type({"command": "x", "output_data": [{"name": "o", "type": "file"}]}))
    task = task_for(execution, phase)
    assert task.task_id == f"{execution.uuid}.{phase}.1"
    assert task.command.startswith("exec '/opt/my python/bin/python3' -c ")
    assert task.command.endswith(f" https://scale.example/agent/steps.pyz {phase}")
    token = task.environment["SCALE_EXECUTION_TOKEN"]
    assert task_of(token, execution.uuid) == task.task_id
    other = submit()
    assert task_of(token, other.uuid) is None
    assert task_of(token + "x", execution.uuid) is None
    assert task_of(issue(other.uuid, task.task_id), execution.uuid) is None
    assert task_of("", execution.uuid) is None
    assert token not in task.command + task.name


def test_only_post_asks_for_scale_until_its_time_out_as_its_command_has_run() -> None:
    execution = submit(make_type({"command": "x", "output_data": [{"name": "o", "type": "file"}]}))
    assert "SCALE_STEPS_API_TRIES" not in task_for(execution, "pre").environment
    tries = int(task_for(execution, "post").environment["SCALE_STEPS_API_TRIES"])
    limits = Limits.from_environment({"SCALE_STEPS_API_TRIES": str(tries)})
    assert limits.api_tries * LONGEST_PAUSE_S > 604_800, "the longest time-out that can be set"


def test_limits_of_phases(settings: Settings) -> None:
    settings.SCALE_STEPS_TIMEOUT_S = 50.0
    execution = submit(make_type(timeout=9))
    assert phase_limit(execution).total_seconds() == 9  # type: ignore[union-attr]
    execution.timeout = 0
    assert phase_limit(execution) is None
    execution.phase = "pre"
    assert phase_limit(execution).total_seconds() == 50  # type: ignore[union-attr]


def test_a_docker_type_sees_its_two_folders_and_its_volumes() -> None:
    volumes = [
        {"container_path": "/data", "host_path": "/mnt/data"},
        {"container_path": "/scratch", "host_path": "/tmp", "mode": "RW"},
    ]
    execution = submit(
        make_type(
            {"command": "x", "output_data": [{"name": "o", "type": "file"}]},
            docker_image="busybox:1",
            volumes=volumes,
        )
    )
    container = task_for(execution).container
    assert container is not None
    assert container.image == "busybox:1"
    folder = work_dir(execution)
    assert [
        (volume.container_path, volume.host_path, volume.read_only) for volume in container.volumes
    ] == [
        ("/data", "/mnt/data", True),
        ("/scratch", "/tmp", False),
        (f"{folder}/inputs", f"{folder}/inputs", True),
        (f"{folder}/outputs", f"{folder}/outputs", False),
    ]
    assert task_for(execution, "pre").container is None


# --- staged inputs --------------------------------------------------------------------------------


def files_job(make_file: Callable[..., File], names: list[str]) -> JobExecution:
    given = [{"uri": name} if "://" in name else {"file_id": make_file(name).pk} for name in names]
    return submit(
        make_type({"command": "x", "input_data": [{"name": "in", "type": "files"}]}),
        {"in": given},
    )


@pytest.mark.parametrize(
    "names",
    [
        ["x", "x", "x"],
        ["x", "1-x", "x"],
        ["2-x", "x", "x"],
        ["3-x", "2-x", "x", "x", "1-x", "x"],
        ["y" * 255, "y" * 255],
        ["ü" * 127, "ü" * 127, "ü" * 127],
        ["https://a/x", "https://b/x", "x"],
    ],
)
def test_files_of_the_same_name_get_names_of_their_own(
    make_file: Callable[..., File], names: list[str]
) -> None:
    execution = files_job(make_file, names)
    paths = [staged.path for staged in staged_inputs(execution, files_of([execution]))]
    assert len(set(paths)) == len(names)
    for path in paths:
        assert path.startswith("inputs/in/")
        assert len(path.removeprefix("inputs/in/").encode()) <= 255
        assert "/" not in path.removeprefix("inputs/in/")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://h/a/b.txt", "b.txt"),
        ("https://h/a%20b.txt?q=/x#/y", "a b.txt"),
        ("https://h", "input"),
        ("https://h/", "input"),
        ("https://h/a/", "input"),
        ("https://h/a%2Fb", "b"),
        ("https://h/..%2Fb", "b"),
        ("https://h/a%2F", "input"),
        ("https://h/%0A", "input"),
        ("https://h/%00", "input"),
        ("https://h/%FF", "�"),
        ("https://h/" + "x" * 256, "input"),
        ("https://h/" + "%C3%BC" * 128, "input"),
        ("file:///data/x.bin", "x.bin"),
    ],
)
def test_the_name_of_a_fetched_file_is_safe_whatever_its_uri(uri: str, name: str) -> None:
    execution = submit(
        make_type({"command": "x", "input_data": [{"name": "in", "type": "file"}]}),
        {"in": {"uri": uri}},
    )
    [staged] = staged_inputs(execution, {})
    assert staged.path == f"inputs/in/{name}"


def test_orders_say_what_to_bring_and_to_take(make_file: Callable[..., File]) -> None:
    file = make_file("a.txt", size=7)
    interface = {
        "command": "x",
        "input_data": [
            {"name": "one", "type": "file"},
            {"name": "two", "type": "files"},
            {"name": "n", "type": "property"},
        ],
        "output_data": [{"name": "out", "type": "file", "pattern": "*.tif", "required": False}],
    }
    uri = "https://example.org/b"
    execution = submit(
        make_type(interface), {"one": {"file_id": file.pk}, "two": [{"uri": uri}], "n": "5"}
    )
    orders = steps_orders(execution)
    assert json.loads(json.dumps(orders)) == orders
    assert orders["execution"] == str(execution.uuid)
    assert orders["work_dir"] == str(work_dir(execution))
    base = f"https://scale.example/agent/executions/{execution.uuid}/inputs"
    assert orders["inputs"] == [
        {
            "name": "one",
            "path": "inputs/one/a.txt",
            "uri": f"{base}/{file.pk}/",
            "stored": True,
            "size": 7,
            "sha256": "ab" * 32,
        },
        {
            "name": "two",
            "path": "inputs/two/b",
            "uri": uri,
            "stored": False,
            "size": None,
            "sha256": None,
        },
    ]
    assert [made["name"] for made in orders["outputs"]] == ["out"]


def test_a_file_that_was_deleted_meanwhile_is_missing_and_stops_nobody(
    make_file: Callable[..., File],
) -> None:
    file = make_file("gone.txt")
    execution = submit(
        make_type({"command": "x", "input_data": [{"name": "in", "type": "file"}]}),
        {"in": {"file_id": file.pk}},
    )
    pk = file.pk
    file.delete()
    assert task_for(execution, "pre").task_id
    [wanted] = steps_orders(execution)["inputs"]
    assert (wanted["stored"], wanted["size"]) == (True, None)
    assert wanted["uri"].endswith(f"/inputs/{pk}/"), "which answers 404, the error missing-file"


def test_a_clean_up_names_the_folders_of_its_executions(tmp_path: Path) -> None:
    executions = [submit() for _ in range(2)]
    task = cleanup_task("cleanup.1", "a1", executions)
    words = subprocess.run(
        ["sh", "-c", "set -- " + task.command.removeprefix("exec ") + '; printf "%s\\n" "$@"'],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    folders = [str(work_dir(each)) for each in executions]
    assert words[-4:] == ["https://scale.example/agent/steps.pyz", "cleanup", *folders]
    assert task.environment["SCALE_AGENT_WORK_DIR"] == str(tmp_path / "work of scale")


class _Restarting(BaseHTTPRequestHandler):
    """Web as it is restarted: it closes, then is not ready, then serves a program."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.asked == 1:
            return
        content = b"import sys; print(*sys.argv[1:])" if self.asked == 3 else b"not ready"
        self.send_response(200 if self.asked == 3 else 503)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_steps_wait_for_web_while_it_is_restarted(settings: Settings, tmp_path: Path) -> None:
    web = HTTPServer(("127.0.0.1", 0), _Restarting)
    serving = Thread(target=web.serve_forever)
    serving.start()
    try:
        settings.SCALE_API_URL = f"http://127.0.0.1:{web.server_port}"
        settings.SCALE_AGENT_PYTHON = sys.executable
        task = cleanup_task("cleanup.1", "a1", [submit()])
        done = subprocess.run(["sh", "-c", task.command], cwd=tmp_path, capture_output=True)
    finally:
        web.shutdown()
        serving.join()
        web.server_close()
    assert done.stdout.decode().startswith("cleanup ")
    assert done.stderr.count(b"cannot bring") == 2
