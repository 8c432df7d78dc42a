"""Processes that outlive a command: named services, each owned by a small daemon.

`record.py` is what is written down and which processes it speaks of, `daemon.py` owns the
processes, `service.py` is what commands call.
"""

from orchestrator.supervisor.record import Process, Service, ServiceError
from orchestrator.supervisor.service import find, start, stop

__all__ = ["Process", "Service", "ServiceError", "find", "start", "stop"]
