"""A run from its request to its end: services up, controller driven, all given back.

`request.py` is what shall be driven, `services.py` what this machine runs for it, `driving.py` the
drive itself, `view.py` who is shown it and may interrupt it.
"""

from orchestrator.core.runs.fleet_on_cluster import HOME, HOST
from orchestrator.service.driving.beginning import begun, hand_over, hand_over_patience
from orchestrator.service.driving.claim import claim
from orchestrator.service.driving.driving import drive, drive_new, serves, wind_down
from orchestrator.service.driving.request import (
    DriveRequest,
    from_here,
    from_namesake,
    new_header,
)
from orchestrator.service.driving.services import (
    Addresses,
    handing_over,
    needs_gateway,
    services,
    startable,
    starting,
    tracking_alone,
)
from orchestrator.service.driving.view import Cancellable, Interrupts, Unseen, View

__all__ = [
    "HOME",
    "HOST",
    "Addresses",
    "Cancellable",
    "DriveRequest",
    "Interrupts",
    "Unseen",
    "View",
    "begun",
    "claim",
    "drive",
    "drive_new",
    "from_here",
    "from_namesake",
    "hand_over",
    "hand_over_patience",
    "handing_over",
    "needs_gateway",
    "new_header",
    "serves",
    "services",
    "startable",
    "starting",
    "tracking_alone",
    "wind_down",
]
