"""What the control plane asks of the world. Adapters implement these; tests fake them.

Foreign errors are translated by the adapter: a port raises only what its docstring names.
"""

from orchestrator.ports.artifacts import ArtifactStore
from orchestrator.ports.clock import Clock
from orchestrator.ports.cluster import Chip, Cluster, ClusterJob, ForeignHead, Warm, Worker
from orchestrator.ports.disposal import Disposal
from orchestrator.ports.endpoints import EndpointLog, EndpointStatus
from orchestrator.ports.events import EventLog, Stored
from orchestrator.ports.gates import Gates
from orchestrator.ports.gateways import GatewayStore
from orchestrator.ports.interventions import Interventions
from orchestrator.ports.keys import KeyStore
from orchestrator.ports.leases import EndpointLeases, Leases
from orchestrator.ports.output import LogChunk, OutputStore
from orchestrator.ports.points import Curve, MetricPoints, Point
from orchestrator.ports.queues import Queues
from orchestrator.ports.registry import Registry
from orchestrator.ports.results import ResultCache
from orchestrator.ports.run_notes import RunNotes
from orchestrator.ports.serving import Replicas, Serving
from orchestrator.ports.tracker import Tracker
from orchestrator.ports.traffic import Traffic
from orchestrator.ports.usage import UsageStore
from orchestrator.ports.verdicts import Verdicts

__all__ = [
    "ArtifactStore",
    "Chip",
    "Clock",
    "Cluster",
    "ClusterJob",
    "Curve",
    "Disposal",
    "EndpointLeases",
    "EndpointLog",
    "EndpointStatus",
    "EventLog",
    "ForeignHead",
    "Gates",
    "GatewayStore",
    "Interventions",
    "KeyStore",
    "Leases",
    "LogChunk",
    "MetricPoints",
    "OutputStore",
    "Point",
    "Queues",
    "Registry",
    "Replicas",
    "ResultCache",
    "RunNotes",
    "Serving",
    "Stored",
    "Tracker",
    "Traffic",
    "UsageStore",
    "Verdicts",
    "Warm",
    "Worker",
]
