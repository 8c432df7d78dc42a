"""Ray Serve behind the port `Serving`: one application a revision, replicas on its pool.

`serving.py` is the port, `deploying.py` one deployment on its way, `operations.py` what is done to
Serve, `state.py` what it says of itself, `placement.py` the probe, `replica.py` what runs on the
pool.
"""

from orchestrator.adapters.rayserve.serving import RayServing

__all__ = ["RayServing"]
