"""Memory, CPU time and open files of a server process, from the operating system."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1024  # in kB, as /proc writes memory


class Usage:
    """The memory and the CPU time of a process since this object was created."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM
        self._memory = self._kilobytes("VmRSS")
        self._cpu = self._seconds()

    @property
    def peak_growth(self) -> float:
        """Return the peak growth of its resident memory, in MB."""
        return (self._kilobytes("VmHWM") - self._memory) / MEGABYTE

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU time that it used."""
        return self._seconds() - self._cpu

    def _kilobytes(self, name: str) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def _seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def open_files(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
