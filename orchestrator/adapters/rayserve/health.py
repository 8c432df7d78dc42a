"""An application of Serve that says that Serve is up, and no more.

KubeRay counts a RayService as ready when an application of its manifest runs on it. Endpoints are
deployed by `launch` and `switch`, so `docker/kubernetes/service.yaml` names this one.
"""

from __future__ import annotations

from ray import serve


@serve.deployment(name="health", ray_actor_options={"num_cpus": 0})
class Health:
    """Answers every request alike."""

    async def __call__(self, _request: object) -> str:
        """Return that it is up."""
        return "up"


application = Health.bind()  # type: ignore[attr-defined]
