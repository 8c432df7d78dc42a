"""The system's clock: by it the control plane reads the time, and waits."""

from __future__ import annotations

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the start of the machine; its sleep counts where it can be told."""
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
