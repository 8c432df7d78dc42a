"""Ray Serve behind the port `Serving`: one application a revision, replicas on its pool.

`serving.py` is the port, `deployment_thread.py` one deployment on its way, `operations.py` what is
done to Serve, `state.py` what it says of itself, `replica_placement.py` the probe. On the pool
runs `replica.py`, with an engine class in it, or `engine_server.py` beside an engine server, which
`supervision.py` starts (`engine_launch.py`, `engine_process.py`; on other nodes `followers.py`)
and watches (`vitals.py`, `engine_figures.py`); `replica_chips.py` shows both their chips.
"""

from orchestrator.adapters.rayserve.serve_requests import ClusterEntry
from orchestrator.adapters.rayserve.serving import RayServing

__all__ = ["ClusterEntry", "RayServing"]
