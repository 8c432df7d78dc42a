"""Processes that outlive a command: named services, each owned by a small daemon.

`record.py` is what is written down and which processes it speaks of, `daemon.py` owns the
processes, `service.py` is what commands call, `tenancy.py` who uses the services of a home.
`holder.py` names a process, so that others can look whether it lives.
"""

from orchestrator.supervisor.record import Process, Service, ServiceError
from orchestrator.supervisor.service import clear, find, start, stop
from orchestrator.supervisor.tenancy import Tenancy

__all__ = ["Process", "Service", "ServiceError", "Tenancy", "clear", "find", "start", "stop"]
