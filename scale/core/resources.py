"""Amounts of cpu, memory and disk that add up exactly."""

from __future__ import annotations

from dataclasses import dataclass

from scale.core.errors import NotEnoughResources


@dataclass(frozen=True, slots=True)
class Resources:
    """What a task needs or an offer has; never negative.

    Thousandths of a core, because Mesos keeps three decimals of a scalar
    (mesos.proto, Value.Scalar) and whole numbers add up exactly.
    """

    millicpus: int = 0
    mem_mib: int = 0
    disk_mib: int = 0

    def __post_init__(self) -> None:
        if self.millicpus < 0 or self.mem_mib < 0 or self.disk_mib < 0:
            raise NotEnoughResources(f"negative resources: {self}")

    def fits_in(self, other: Resources) -> bool:
        return (
            self.millicpus <= other.millicpus
            and self.mem_mib <= other.mem_mib
            and self.disk_mib <= other.disk_mib
        )

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.millicpus + other.millicpus,
            self.mem_mib + other.mem_mib,
            self.disk_mib + other.disk_mib,
        )

    def __mul__(self, times: int) -> Resources:
        return Resources(self.millicpus * times, self.mem_mib * times, self.disk_mib * times)

    def __sub__(self, other: Resources) -> Resources:
        """Return what is left; raise NotEnoughResources if `other` does not fit in here."""
        if not other.fits_in(self):
            raise NotEnoughResources(f"{other} from {self}")
        return Resources(
            self.millicpus - other.millicpus,
            self.mem_mib - other.mem_mib,
            self.disk_mib - other.disk_mib,
        )
