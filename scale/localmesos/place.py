"""Where an agent is and what it has."""

from dataclasses import dataclass
from pathlib import Path

from scale.localmesos.resources import Resources


@dataclass(frozen=True, slots=True)
class Place:
    """One agent's identity, address and resources."""

    agent_id: str
    hostname: str
    ip: str
    port: int
    resources: Resources

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Home(Place):
    """What only the agent itself knows of its place."""

    root: Path  # its part of the work folder
    disk_watch_s: float = 15.0  # longest time between looks at a sandbox; 0: never
