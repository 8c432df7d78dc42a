"""What the control plane asks of the world. Adapters implement these; tests fake them.

Foreign errors are translated by the adapter: a port raises only what its docstring names.
"""

from orchestrator.ports.endpoints import EndpointStore, GatewayStore, Traffic
from orchestrator.ports.keys import KeyStore
from orchestrator.ports.outside import Clock, Gates, Observer, Tracker
from orchestrator.ports.pools import Chip, Cluster, Job, Replicas, Serving, Worker
from orchestrator.ports.registry import Registry
from orchestrator.ports.stores import ArtifactStore, EventStore, Point, Stored
from orchestrator.ports.usage import UsageStore

__all__ = [
    "ArtifactStore",
    "Chip",
    "Clock",
    "Cluster",
    "EndpointStore",
    "EventStore",
    "Gates",
    "GatewayStore",
    "Job",
    "KeyStore",
    "Observer",
    "Point",
    "Registry",
    "Replicas",
    "Serving",
    "Stored",
    "Tracker",
    "Traffic",
    "UsageStore",
    "Worker",
]
