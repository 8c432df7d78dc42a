"""Processes that outlive a command: named services, each owned by a small daemon.

`record.py` is what is written down and which processes it speaks of, `daemon.py` owns the
processes, `service.py` is what commands call, `tenancy.py` who uses the services of a home.
`holder.py` names a process, so that others can look whether it lives; `leaving.py` says that the
services of a home are about to be stopped. `orphans.py` ends what a dead process left running.
"""

from orchestrator.supervisor.leaving import is_leaving, leaving
from orchestrator.supervisor.record import Process, Service, ServiceError
from orchestrator.supervisor.service import clear, elsewhere, find, start, stop
from orchestrator.supervisor.tenancy import Tenancy, is_user

__all__ = [
    "Process",
    "Service",
    "ServiceError",
    "Tenancy",
    "clear",
    "elsewhere",
    "find",
    "is_leaving",
    "is_user",
    "leaving",
    "start",
    "stop",
]
