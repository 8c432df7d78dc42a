"""An endpoint, as Python asks and moves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self, Unpack

from rich.console import RenderableType

from orchestrator.client.running import LiveRun
from orchestrator.client.shown import Shown
from orchestrator.core.endpoints.life import EndpointLife, Revision
from orchestrator.display import endpoints as display
from orchestrator.service import asking, driving, endpoints, switching, updating


class LiveEndpoint(Shown):
    """A model that is served at a stable address. Each look asks the database."""

    def __init__(self, name: str) -> None:
        """Follow the endpoint of that name."""
        self.name = name

    @property
    def url(self) -> str:
        """The base URL of its OpenAI-compatible API.

        Raises:
            ServingError: No gateway is up.
        """
        return endpoints.base_url(self.name)

    @property
    def revisions(self) -> Mapping[str, Revision]:
        """Its revisions that are not retired, by their names: pool, state, model."""
        return {revision.name: revision for revision in self._life.live}

    @property
    def shares(self) -> Mapping[str, int]:
        """The share of the traffic that each revision has, in percent."""
        return {f"r{number}": share for number, share in self._life.shares.items()}

    @property
    def shadow(self) -> str | None:
        """The revision that gets copies of requests, if one does."""
        return None if self._life.shadow is None else f"r{self._life.shadow}"

    @property
    def overflow(self) -> str | None:
        """The revision that gets what finds no room, if one does."""
        return None if self._life.overflow is None else f"r{self._life.overflow}"

    @property
    def _life(self) -> EndpointLife:
        return endpoints.endpoints(self.name).lives[self.name]

    def ask(self, question: str, *, max_tokens: int = 128, temperature: float = 0.0) -> str:
        """Return the answer to a question.

        Raises:
            ServingError: It does not answer, or refuses the question.
        """
        return "".join(self.stream(question, max_tokens=max_tokens, temperature=temperature))

    def stream(
        self, question: str, *, max_tokens: int = 128, temperature: float = 0.0
    ) -> Iterator[str]:
        """Yield the answer in pieces, as it comes.

        Raises:
            ServingError: It does not answer, or refuses the question.
        """
        return asking.ask(question, self.name, max_tokens=max_tokens, temperature=temperature)

    def traffic(
        self, shares: Mapping[int, int] | None = None, **beside: Unpack[endpoints.Beside]
    ) -> Self:
        """Share its traffic between revisions, in percent by their numbers; return it.

        `shadow` is the revision that gets copies, `overflow` who gets what finds no room; None
        ends either. What is not given stays.

        Raises:
            TransitionError: A revision can't have what it is given.
        """
        endpoints.traffic(self.name, shares or {}, **beside).make()
        return self

    def switch(self, *overrides: str, unqualified: bool = False) -> LiveRun:
        """Move it to other hardware (`pool=nvidia`), and return the run that did it.

        A pool of which no verdict holds is qualified first.

        Raises:
            PlanError: It can't be served there, or the pool was refused.
        """
        planned = switching.switch(self.name, overrides, unqualified=unqualified)
        return LiveRun(planned.run(driving.Unseen()).header.run)

    def deploy(self, *overrides: str, unqualified: bool = False) -> LiveRun:
        """Add a revision without traffic (`pool=nvidia`), and return the run that did it.

        Raises:
            PlanError: It can't be served there, or the pool was refused.
        """
        planned = switching.deploy(self.name, overrides, unqualified=unqualified)
        return LiveRun(planned.run(driving.Unseen()).header.run)

    def rollback(self) -> Self:
        """Give all traffic back to the revision before, and return the endpoint.

        Raises:
            NotFoundError: There is none.
        """
        back = switching.rollback(self.name)
        if back.at_once is not None:
            back.at_once.make()
        elif back.anew is not None:
            back.anew.run(driving.Unseen())
        return self

    def update(self, model: str, version: int) -> Self:
        """Have the revision that leads serve a registered version, live; return the endpoint.

        Raises:
            NotFoundError: There is no such version.
            ConfigError: Its replicas can't take it.
        """
        change = updating.update(self.name, model, version)
        if not isinstance(change, str):
            change.make()
        return self

    def undeploy(self, revision: int | None = None) -> str:
        """Retire it, or a revision by its number; return what has become of that, in a line.

        Raises:
            ConfigError: The revision has all traffic while another could take it.
        """
        return endpoints.undeploy(self.name, revision).make()

    def __rich__(self) -> RenderableType:
        """Return its revisions, their pools and their shares."""
        return display.table(endpoints.endpoints(self.name))
