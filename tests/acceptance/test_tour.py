"""The README's tour and what goes wrong on the way, through HTTP only."""

from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stack import Stack, until

TEXT = "".join(f"line {number}: the quick brown fox\n" for number in range(5000)).encode()
WORD_COUNT = {
    "interface": {
        "version": "1.0",
        "input_data": [
            {"name": "text", "type": "file", "media_types": ["text/plain"]},
            {
                "name": "pause",
                "type": "property",
                "value_type": "number",
                "required": False,
                "default": 0,
            },
        ],
        "output_data": [
            {"name": "count", "type": "file", "pattern": "count.txt", "media_type": "text/plain"}
        ],
    }
}
COUNT = (
    '-c \'wc -w "$1" | tee "$SCALE_OUTPUT_DIR/count.txt"; '
    'for n in 1 2 3 4; do echo "still here $n"; sleep "$2"; done\' - ${text} ${pause}'
)
PHASE_TIMES = [
    f"{phase}_{what}" for phase in ("pre", "job", "post") for what in ("started", "completed")
]


@pytest.fixture
def word_count(stack: Stack) -> dict[str, Any]:
    return stack.job_type("sh", COUNT, **WORD_COUNT)


def test_a_file_is_counted_while_its_log_grows_and_the_count_is_downloaded(
    stack: Stack, word_count: dict[str, Any]
) -> None:
    file_id = stack.upload("words.txt", TEXT)
    assert stack.call("PATCH", "/scheduler/", {"is_paused": True}).status < 300
    job_id = stack.submit(word_count, text={"file_id": file_id}, pause=1)
    execution = stack.last_execution(job_id)
    assert execution["status"] == "QUEUED"
    assert stack.call("PATCH", "/scheduler/", {"is_paused": False}).status < 300

    path = f"/job-executions/{execution['id']}"
    seen = []
    until(lambda: b"still here" in stack.call("GET", f"{path}/logs/stdout/").body)
    while True:
        status = stack.get(f"{path}/")["status"]
        body = stack.call("GET", f"{path}/logs/stdout/").body
        if b"here 4" in body:
            break
        assert status == "RUNNING"
        if body not in seen:
            seen.append(body)
    assert len(seen) > 1, "the log did not grow while the job ran"
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))

    details = stack.ended(job_id)
    assert details["status"] == "COMPLETED"
    times = [details[name] for name in PHASE_TIMES]
    assert times == sorted(times)
    assert [details[f"{phase}_exit_code"] for phase in ("pre", "job", "post")] == [0, 0, 0]
    assert details["error"] is None
    (output,) = details["results"]["output_data"]
    downloaded = stack.call("GET", f"/files/{output['file_id']}/content/")
    assert downloaded.status == 200
    assert downloaded.text.split()[0] == str(len(TEXT.split()))
    logs = stack.get(f"{path}/logs/")
    assert logs["is_finished"] is True
    assert "still here 4" in logs["stdout"]
    assert not stack.work_folder(details).exists()


def test_the_live_stream_brings_each_line_and_ends_with_the_execution(stack: Stack) -> None:
    job_type = stack.job_type("sh", "-c 'for n in 1 2 3; do echo tick $n; sleep 0.3; done'")
    job_id = stack.submit(job_type)
    execution = stack.last_execution(job_id)["id"]
    stream = stack.call("GET", f"/job-executions/{execution}/logs/stream/?stream=stdout").text
    assert stream.count("tick") == 3
    assert "event: end" in stream


def test_an_exit_code_becomes_the_error_that_the_mapping_names(stack: Stack) -> None:
    name = f"bad-data-{uuid4().hex[:8]}"
    stack.post(
        "/errors/",
        {"name": name, "title": "Bad data", "description": "unusable input", "category": "DATA"},
    )
    job_type = stack.job_type(
        "sh", "-c 'exit 3'", error_mapping={"version": "1.0", "exit_codes": {"3": name}}
    )
    details = stack.ended(stack.submit(job_type))
    assert (details["status"], details["job_exit_code"]) == ("FAILED", 3)
    assert details["error"]["name"] == name
    assert details["exe_num"] == 1, "errors in data are not tried again"


def test_a_job_that_runs_too_long_is_ended_with_timeout(stack: Stack) -> None:
    details = stack.ended(stack.submit(stack.job_type("sleep", "60", timeout=1)))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "timeout")


def test_a_canceled_job_is_canceled_at_once_and_its_process_ends(stack: Stack) -> None:
    job_type = stack.job_type("sh", "-c 'echo $$; exec sleep 60'")
    job_id = stack.submit(job_type)
    execution = stack.last_execution(job_id)["id"]
    log = f"/job-executions/{execution}/logs/stdout/"
    until(lambda: stack.call("GET", log).body.endswith(b"\n"))
    pid = int(stack.call("GET", log).body)
    answer = stack.call("PATCH", f"/jobs/{job_id}/", {"status": "CANCELED"})
    assert (answer.status, answer.json["status"]) == (200, "CANCELED")
    details = stack.ended(job_id)
    assert (details["status"], details["error"]) == ("CANCELED", None)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert stack.call("PATCH", f"/jobs/{job_id}/", {"status": "CANCELED"}).status == 409


def test_a_job_that_takes_too_much_memory_is_ended_and_told_how_much(stack: Stack) -> None:
    job_type = stack.job_type(
        "python3", "-c 'import time; kept = bytearray(200_000_000); time.sleep(30)'"
    )
    details = stack.ended(stack.submit(job_type))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "memory-limit")
    assert "64" in details["error_message"]


def test_inputs_that_do_not_fit_are_refused_by_name_and_nothing_is_made(
    stack: Stack, word_count: dict[str, Any]
) -> None:
    before = stack.get("/jobs/?page_size=1")["count"]
    for inputs, named in [
        ({}, "text"),
        ({"text": {"file_id": 999_999_999}}, "text"),
        ({"text": "words"}, "text"),
        ({"text": {"file_id": stack.upload("a.txt", b"a")}, "pause": "long"}, "pause"),
        ({"text": {"uri": "ftp://example.org/a"}}, "text"),
        ({"txt": 1}, "txt"),
    ]:
        answer = stack.call("POST", "/jobs/", {"job_type_id": word_count["id"], "inputs": inputs})
        assert answer.status == 400
        assert answer.json["field"] == f"inputs.{named}"
    assert stack.get("/jobs/?page_size=1")["count"] == before


def test_an_input_that_is_not_there_fails_the_pre_phase_and_leaves_no_folder(
    stack: Stack, word_count: dict[str, Any]
) -> None:
    gone = f"{stack.url}/there-is-no-such-file.txt"
    details = stack.ended(stack.submit(word_count, text={"uri": gone}))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "missing-file")
    assert details["job_started"] is None
    assert "404" in details["error_message"]
    until(lambda: not stack.work_folder(details).exists())


def test_a_missing_output_fails_the_post_phase_and_leaves_no_folder(stack: Stack) -> None:
    job_type = stack.job_type(
        "true", interface={"output_data": [{"name": "made", "type": "file", "pattern": "*.out"}]}
    )
    details = stack.ended(stack.submit(job_type))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "missing-required-output")
    assert "made" in details["error_message"]
    until(lambda: not stack.work_folder(details).exists())


def test_an_input_cannot_inject_a_command(stack: Stack, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    values = [
        f"'; touch {canary}; '",
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"a\ntouch {canary}",
    ]
    job_type = stack.job_type(
        "printf",
        "'%s' ${value}",
        interface={"input_data": [{"name": "value", "type": "property"}]},
    )
    for value in values:
        job_id = stack.submit(job_type, value=value)
        details = stack.ended(job_id)
        assert details["status"] == "COMPLETED"
        log = stack.call("GET", f"/job-executions/{details['id']}/logs/stdout/")
        assert log.text == value
    assert not canary.exists()


def test_an_error_that_may_pass_is_tried_again_up_to_max_tries(stack: Stack) -> None:
    name = f"flaky-{uuid4().hex[:8]}"
    stack.post(
        "/errors/",
        {
            "name": name,
            "title": "Flaky",
            "description": "may pass",
            "category": "ALGORITHM",
            "should_be_retried": True,
        },
    )
    job_type = stack.job_type(
        "sh", "-c 'exit 9'", max_tries=3, error_mapping={"exit_codes": {"9": name}}
    )
    job_id = stack.submit(job_type)
    details = stack.ended(job_id)
    assert details["exe_num"] == 3
    assert stack.get(f"/jobs/{job_id}/")["error"]["name"] == name
