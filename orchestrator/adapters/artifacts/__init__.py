"""The artifact store: manifests, the places where artifacts lie, and the store itself."""

from orchestrator.adapters.artifacts.protocols import lacking, open_files
from orchestrator.adapters.artifacts.store import FsspecArtifactStore

__all__ = ["FsspecArtifactStore", "lacking", "open_files"]
