"""A gateway, as others learn of it from the database."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.own_host import leads_home

SILENT_SECONDS = 15.0  # after which a gateway counts as gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A process that answers clients.

    Attributes:
        name: Unique over all gateways that ever were.
        url: Its address, as clients are told it.
        host: What shares its loopback: the name of its host, `/`, and what tells that from others.
        pid: Its process there.
        cluster: Address of the cluster whose endpoints it was started for.
        since: When it began, by the database's clock (seconds, epoch).
        silent: For how many seconds it has shown no life, by the same clock.
    """

    name: str
    url: str
    host: str
    pid: int
    cluster: str = ""
    since: float = 0.0
    silent: float = 0.0

    @property
    def host_name(self) -> str:
        """Name of the host that it runs on, which others may have too."""
        return self.host.partition("/")[0]

    @property
    def live(self) -> bool:
        """Whether it has shown life of late."""
        return self.silent <= SILENT_SECONDS

    def reachable(self, host: str) -> bool:
        """Whether what is on `host` can ask it: one on loopback answers its own host alone."""
        return self.host == host or not leads_home(self.url)
