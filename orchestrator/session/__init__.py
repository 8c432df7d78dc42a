"""A run from the command line to its end: services up, controller driven, all given back.

`order.py` is what shall be driven, `services.py` what this machine runs for it, `driving.py` the
drive itself, `interrupts.py` what Ctrl-C does.
"""

from orchestrator.session.beginning import begun, hand_over
from orchestrator.session.claim import claim
from orchestrator.session.driving import View, launch, resume, serves, wind_down
from orchestrator.session.interrupts import Interrupts
from orchestrator.session.order import HOST, Order, new_header
from orchestrator.session.reopen import Again, reopen, reopening
from orchestrator.session.services import (
    Addresses,
    needs_gateway,
    services,
    startable,
    starting,
    tracking_alone,
)

__all__ = [
    "HOST",
    "Addresses",
    "Again",
    "Interrupts",
    "Order",
    "View",
    "begun",
    "claim",
    "hand_over",
    "launch",
    "needs_gateway",
    "new_header",
    "reopen",
    "reopening",
    "resume",
    "serves",
    "services",
    "startable",
    "starting",
    "tracking_alone",
    "wind_down",
]
