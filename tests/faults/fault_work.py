"""What runs meanwhile: jobs of several kinds, some of which are canceled in flight."""

import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

from fault_world import World
from psycopg2 import Error as DatabaseProblem

#: Attempts enough that no number of lost ones ends a job.
MAX_TRIES: Final = 50
TERMINAL_JOB: Final = ("COMPLETED", "FAILED", "CANCELED")
#: What jobs with a file read, and put out again.
INPUT: Final = "some words\n"
#: The last act of a command that ends well: one short line, added in one write.
DONE: Final = 'echo "$SCALE_JOB_ID $SCALE_EXECUTION_ID done" >> {witness}'


@dataclass(frozen=True)
class Kind:
    """Jobs that end alike. `share` is how often they come; `error` is how a failure ends."""

    name: str
    script: str
    share: int
    ends: str
    error: str | None = None
    with_file: bool = False


KINDS: Final = (
    Kind("quick", f"echo begin; sleep 0.05; echo end; {DONE}", 5, "COMPLETED"),
    Kind("slow", f"echo begin; sleep 2.5; echo end; {DONE}", 2, "COMPLETED"),
    Kind(
        "files",
        f'echo begin; cp "$1" "$SCALE_OUTPUT_DIR/copy.txt"; sleep 0.2; echo end; {DONE}',
        4,
        "COMPLETED",
        with_file=True,
    ),
    Kind("failing", "echo begin; sleep 0.1; echo end; exit 3", 2, "FAILED", error="bad-data"),
    Kind("canceled", "echo begin; exec sleep 600", 2, "CANCELED"),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}


@dataclass
class Work:
    """Keeps `in_flight` jobs unfinished, and cancels those that are to be canceled."""

    world: World
    dice: random.Random
    in_flight: int = 24
    _types: dict[str, int] = field(default_factory=dict)
    _cancel_at: dict[int, float] = field(default_factory=dict)
    _file: int = 0
    _looked: float = 0.0

    def prepare(self) -> None:
        """Make the error, the job types and the input file."""
        self._post("/errors/", {"name": "bad-data", "title": "Bad data", "description": "-",
                                "category": "DATA"})  # fmt: skip
        for kind in KINDS:
            self._types[kind.name] = self._post("/job-types/", self._job_type(kind))["id"]
        self._file = self._upload()

    def keep(self, wanted: int) -> None:
        """Cancel what is due; submit up to `wanted` jobs in all. What fails is tried again."""
        if time.monotonic() - self._looked < 0.1:
            return
        self._looked = time.monotonic()
        try:
            total, live = self.world.database.rows(
                "SELECT count(*), count(*) FILTER (WHERE status <> ALL(%s)) FROM job",
                list(TERMINAL_JOB),
            )[0]
            self._cancel()
        except DatabaseProblem:
            return
        for _ in range(min(wanted - total, self.in_flight - live, 6)):
            [kind] = self.dice.choices(KINDS, [kind.share for kind in KINDS])
            inputs = {"text": {"file_id": self._file}} if kind.with_file else {}
            order = {"job_type_id": self._types[kind.name], "inputs": inputs}
            if self.world.call("POST", "/jobs/", order)[0] != 201:
                return

    def settled(self) -> bool:
        """Return whether nothing of the work, its logs and its folders is left to be done."""
        left = self.world.database.one(
            "SELECT count(*) FROM job_execution WHERE ended IS NULL OR cleanup_owed OR logs_owed"
        )
        return not left and not self._unfinished()

    def _unfinished(self) -> int:
        query = "SELECT count(*) FROM job WHERE status <> ALL(%s)"
        return int(self.world.database.one(query, list(TERMINAL_JOB)))

    def _cancel(self) -> None:
        live = self.world.database.rows(
            "SELECT id FROM job WHERE job_type_id = %s AND status <> ALL(%s)",
            self._types["canceled"],
            list(TERMINAL_JOB),
        )
        for (job_id,) in live:
            # Some before they start, most in flight.
            due = self._cancel_at.setdefault(job_id, time.monotonic() + self.dice.uniform(0, 4))
            if time.monotonic() >= due:
                self.world.call("PATCH", f"/jobs/{job_id}/", {"status": "CANCELED"})

    def _job_type(self, kind: Kind) -> dict[str, Any]:
        script = kind.script.format(witness=self.world.witness)
        interface: dict[str, Any] = {"command": "sh", "command_arguments": f"-c '{script}'"}
        if kind.with_file:
            interface |= {
                "command_arguments": f"-c '{script}' - ${{text}}",
                "input_data": [{"name": "text", "type": "file"}],
                "output_data": [{"name": "copy", "type": "file", "pattern": "copy.txt"}],
            }
        made: dict[str, Any] = {
            "name": kind.name,
            "version": "1",
            "cpus_required": 0.1,
            "mem_required": 64,
            "disk_out_const_required": 1,
            "max_tries": MAX_TRIES,
            "interface": interface,
        }
        if kind.error:
            made["error_mapping"] = {"version": "1.0", "exit_codes": {"3": kind.error}}
        return made

    def _post(self, path: str, body: Any) -> Any:
        status, answer = self.world.call("POST", path, body)
        assert status == 201, (path, status, answer)
        return answer

    def _upload(self) -> int:
        source = self.world.home / "input.txt"
        source.write_text(INPUT)
        status, answer = self.world.upload(source)
        assert status == 201, answer
        return int(answer["id"])
