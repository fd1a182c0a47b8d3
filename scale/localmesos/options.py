"""The command line of local Mesos, and what it says about this machine."""

import argparse
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scale.localmesos.resources import Resources, merged

FIRST_PORT: Final = 31000
PORTS_PER_AGENT: Final = 1000
WEEK_S: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; amounts are per agent, None shares out the machine."""

    work_dir: Path
    ip: str
    port: int
    agent_port: int
    agents: int
    hostname: str
    cpus: float | None
    mem_mib: float | None
    disk_mib: float | None
    credentials_file: Path
    announce_file: Path | None
    heartbeat_s: float
    ack_retry_s: float
    offer_timeout_s: float
    allocation_interval_s: float
    gc_delay_s: float
    disk_watch_s: float
    ping_s: float
    max_missed_pings: int
    reregister_s: float
    agent_restart_s: float
    shutdown_grace_s: float
    journal_limit: int


def parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are Mesos' own."""
    made = argparse.ArgumentParser(
        prog="scale localmesos",
        description="A Mesos master and its agents for this machine, with real processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("--work-dir", type=Path, required=True, help="sandboxes and what must survive a restart")
    add("--ip", type=_ipv4, default="127.0.0.1", help="IPv4 address to listen on")
    add("--port", type=_port, default=0, help="the master's port; 0: any")
    add(
        "--agent-port",
        type=_port,
        default=0,
        help="the first agent's port, the next follow; 0: any",
    )
    add("--agents", type=_count, default=1, help="number of agents")
    add(
        "--hostname", default=socket.gethostname(), help="the first agent's; others get -2, -3, ..."
    )
    add("--cpus", type=_amount, help="of each agent; without it the machine's are shared out")
    add("--mem", type=_amount, metavar="MIB", help="likewise")
    add("--disk", type=_amount, metavar="MIB", help="likewise")
    add("--credentials-file", type=Path, help="two lines, principal and secret; made if absent")
    add("--announce-file", type=Path, help="JSON with addresses and pids, rewritten at restarts")
    add(
        "--journal-limit",
        type=_count,
        default=64 << 20,
        help="bytes before a journal is rewritten",
    )
    _add_periods(made)
    return made


def _add_periods(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--heartbeat-s", type=_seconds, default=15.0, help="between events of an idle stream")
    add("--ack-retry-s", type=_seconds, default=10.0, help="first repetition of an update; then x2")
    add("--offer-timeout-s", type=_amount, default=0.0, help="offers are rescinded after; 0: never")
    add("--allocation-interval-s", type=_amount, default=1.0, help="shortest effect of a decline")
    add("--gc-delay-s", type=_amount, default=WEEK_S, help="age at which sandboxes are deleted")
    add("--disk-watch-s", type=_amount, default=15.0, help="between looks at sandboxes; 0: never")
    add("--agent-ping-s", type=_seconds, default=15.0, help="between pings of an agent")
    add("--agent-max-pings", type=_count, default=5, help="missed pings after which it is lost")
    add(
        "--agent-reregister-s",
        type=_seconds,
        default=600.0,
        help="what agents have to come back after a restart of the master",
    )
    add("--agent-restart-s", type=_amount, default=1.0, help="pause before an agent's restart")
    add("--shutdown-grace-s", type=_amount, default=3.0, help="SIGTERM to SIGKILL when we stop")


def parse(arguments: Sequence[str]) -> Options:
    given = parser().parse_args(arguments)
    work_dir = given.work_dir.absolute()
    return Options(
        work_dir=work_dir,
        ip=given.ip,
        port=given.port,
        agent_port=given.agent_port,
        agents=given.agents,
        hostname=given.hostname,
        cpus=given.cpus,
        mem_mib=given.mem,
        disk_mib=given.disk,
        credentials_file=given.credentials_file or work_dir / "credentials",
        announce_file=given.announce_file,
        heartbeat_s=given.heartbeat_s,
        ack_retry_s=given.ack_retry_s,
        offer_timeout_s=given.offer_timeout_s,
        allocation_interval_s=given.allocation_interval_s,
        gc_delay_s=given.gc_delay_s,
        disk_watch_s=given.disk_watch_s,
        ping_s=given.agent_ping_s,
        max_missed_pings=given.agent_max_pings,
        reregister_s=given.agent_reregister_s,
        agent_restart_s=given.agent_restart_s,
        shutdown_grace_s=given.shutdown_grace_s,
        journal_limit=given.journal_limit,
    )


def agent_resources(options: Options, number: int) -> Resources:
    """Return what agent `number` (from 0) offers: what was given, or its share of the machine."""
    share = 1 / options.agents
    cpus = len(os.sched_getaffinity(0)) * share if options.cpus is None else options.cpus
    mem = _machine_mem_mib() * share if options.mem_mib is None else options.mem_mib
    disk = (
        _free_disk_mib(options.work_dir) * share if options.disk_mib is None else options.disk_mib
    )
    amounts = {"cpus": int(cpus * 1000), "mem": int(mem) * 1000, "disk": int(disk) * 1000}
    first = FIRST_PORT + number * (PORTS_PER_AGENT + 1)
    last = first + PORTS_PER_AGENT
    return Resources(
        {name: amount for name, amount in amounts.items() if amount},
        {"ports": merged([(first, last)])} if last < 1 << 16 else {},
    )


def _machine_mem_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _free_disk_mib(path: Path) -> int:
    return shutil.disk_usage(path).free >> 20


def _ipv4(text: str) -> str:
    try:
        socket.inet_aton(text)
    except OSError:
        raise argparse.ArgumentTypeError(f"{text} is not an IPv4 address") from None
    return text


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _amount(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e12:
        raise argparse.ArgumentTypeError(f"{text} is not an amount")
    return number


def _seconds(text: str) -> float:
    number = _amount(text)
    if number < 0.01:
        raise argparse.ArgumentTypeError(f"{text} s is too short")
    return number
