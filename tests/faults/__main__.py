"""`make faults SEED=1 COUNT=1000`: a long run that prints its figures; exits with 1 on a find."""

import argparse
import os
import platform
import sys
import time

from fault_kinds import every_fault
from fault_run import Run, world


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500, help="jobs to submit at least")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=sorted(every_fault(long_run=True, small_disk=True)),
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the folder; no fault fills a disk then"
    )
    wanted = parser.parse_args()
    began = time.monotonic()
    with world(keep=wanted.keep, small_disk=not wanted.keep) as made:
        print(f"in {made.home}", flush=True)
        if not made.small_disk:
            print("no fault fills a disk: that takes root, and goes without --keep", flush=True)
        run = Run(
            made,
            wanted.seed,
            wanted.count,
            only=tuple(wanted.only),
            say=lambda text: print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True),
        )
        report = run.run()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} (5 min)")
    print(*report.lines(), sep="\n")
    return bool(report.findings.all)


if __name__ == "__main__":
    sys.exit(main())
