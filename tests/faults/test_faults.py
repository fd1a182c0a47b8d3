"""Every part is killed once while work goes on; nothing is lost, doubled or left hanging."""

import pytest
from fault_kinds import every_fault
from fault_run import Run, world

SEED = 20
COUNT = 300


@pytest.mark.slow
@pytest.mark.timeout(900)  # two minutes and a quarter on a calm machine
def test_no_crash_loses_doubles_or_hangs_an_execution() -> None:
    with world() as made:
        report = Run(made, SEED, COUNT, only=tuple(sorted(every_fault()))).run()
    text = "\n".join(report.lines())
    assert report.findings.all == [], text
    assert report.findings.executions >= COUNT, text
