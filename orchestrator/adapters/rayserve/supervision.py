"""One engine server under supervision: started, asked until it is ready, watched, stopped.

Nothing here knows Ray. Requests go to the engine's own port and pass nobody here.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from orchestrator.adapters.rayserve import engine_figures, proof
from orchestrator.adapters.rayserve.engine_client import FOREIGN, EngineClient, NotYetError
from orchestrator.adapters.rayserve.engine_figures import Figures
from orchestrator.adapters.rayserve.engine_launch import (
    EngineStartError,
    Followers,
    NoFollowers,
    free_ports,
    launch,
    say,
)
from orchestrator.adapters.rayserve.engine_process import EngineProcess, OwnFolder
from orchestrator.adapters.rayserve.vitals import Vitals
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.engine_checks import indivisible
from orchestrator.core.spec.engine_command import MEETING_PORTS, ReplicaPart
from orchestrator.core.spec.engines import EngineSpec, Maker, split_of
from orchestrator.core.spec.model_shapes import unreadable, unreadable_experts

_LOOK_SECONDS = 1.0
_READY_SECONDS = 0.2
_PORTS = 3  # tries, should somebody else take the port meanwhile
_TAKEN = "ddress already in use"
_TEXT = "The quick brown fox jumps over the lazy dog. 1 + 1 = 2"


class Supervision:
    """An engine server and the thread that watches it.

    Args:
        deployment: What is served; its endpoint names an engine server.
        folder: The model.
        host: Address at which the engine listens.
        recorded: Folder of what was recorded of that model; one's own `proof.json` counts more.
        followers: Its processes on other nodes.
    """

    def __init__(
        self,
        deployment: Deployment,
        folder: Path,
        host: str,
        recorded: Path | None = None,
        followers: Followers | None = None,
    ) -> None:
        spec = deployment.endpoint.server
        assert spec is not None, "the plan has its server"  # noqa: S101
        self._spec: EngineSpec = spec
        self._deployment = deployment
        self._folder = folder
        self._proofs = {folder: proof.read(recorded)} if recorded else {}
        self._host = host
        endpoint, key = deployment.endpoint, deployment.token
        self._client = EngineClient(spec, host, endpoint.name, key)
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._files = OwnFolder()
        self._process: EngineProcess | None = None
        self._followers: Followers = followers or NoFollowers()
        self._watching: threading.Thread | None = None
        self._probing: threading.Thread | None = None
        self._vitals = Vitals(spec, time.monotonic())
        self.figures = Figures()

    @property
    def url(self) -> str:
        """Base URL at which the engine answers."""
        return self._client.url

    @property
    def port(self) -> int:
        """Port at which it listens; 0 before it was started."""
        return self._client.port

    @property
    def fault(self) -> str:
        """Why it can't serve; empty while it can."""
        return self._vitals.fault

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine and wait until it answers; the endpoint's `ready` limits that.

        Raises:
            EngineStartError: It can't take the model, or ended; its last words say why.
        """
        self._check()
        for tries_left in reversed(range(_PORTS)):
            try:
                self._start(*free_ports(self._host, 1))
                break
            except EngineStartError as error:
                if _TAKEN not in str(error) or not tries_left:
                    raise
        self._watching = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        self._watching.start()

    def _check(self) -> None:
        pool, options = self._deployment.pool, self._deployment.endpoint.engine_options
        split = split_of(
            self._spec, self._spec.all_options(pool, options), self._deployment.needs.devices
        )
        try:
            config = json.loads((self._folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            return  # the engine says what it wants of a folder
        if not isinstance(config, dict):
            return
        for why in indivisible(config, split):
            raise EngineStartError(f"{why}: set needs.devices to a number that divides it")
        maker = self._spec.on(pool) or Maker()
        for why in unreadable(config, split.tensor, maker.multiples):
            hint = "set needs.devices to a number that divides it, or export another format"
            raise EngineStartError(f"{why}: {hint}")
        for why in unreadable_experts(config, maker.dense):
            raise EngineStartError(f"{why}: export another format, or serve on another pool")

    def _start(self, port: int) -> None:
        if self._stopping.is_set():
            raise EngineStartError("it was stopped")
        self._client.port = port
        ports: tuple[int, ...] = ()
        if self._followers.count:
            free = free_ports(self._host, MEETING_PORTS + 1)
            ports = tuple(free_port for free_port in free if free_port != port)[:MEETING_PORTS]
        part = ReplicaPart(nodes=self._followers.count + 1, leader=self._host, ports=ports)
        at = self._host, port
        try:
            self._process = launch(self._deployment, self._folder, self._files.path, at, part)
            self._followers.start(self._folder, self._host, ports)
            self._await_ready(self._process)
        except EngineStartError:
            self._end(0.0)
            raise

    def _await_ready(self, process: EngineProcess) -> None:
        while not self._introduces_itself():
            ended = "" if process.status is None else process.how_it_ended()
            if how := "; ".join(filter(None, (ended, self._followers.ended()))):
                last = EngineStartError("it printed:\n" + "\n".join(process.lines))
                raise EngineStartError(f"engine {self._spec.name!r} ended {how}") from last
            if self._stopping.wait(_READY_SECONDS):
                raise EngineStartError("it was stopped")
        wrong = self._departure(self._folder) if self._client.scores_texts else ""
        if wrong:
            raise EngineStartError(f"engine {self._spec.name!r} computes another model: {wrong}")
        self._vitals = Vitals(self._spec, time.monotonic())
        say(f"ready at {self.url}")

    def _introduces_itself(self) -> bool:
        """Return whether it is ready, and is asked; more than its ready path has to say so."""
        try:
            wrong = self._client.introduced() if self._client.ready() else None
        except NotYetError:
            return False
        if wrong:
            raise EngineStartError(f"engine {self._spec.name!r}: {wrong}")
        return wrong is not None

    # --- health ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with self._changing:
                self._observe()
            if self.fault:
                say(self.fault)
                return

    def _observe(self) -> None:
        assert self._process is not None, "it was started"  # noqa: S101
        if self._process.status is not None:
            self._vitals.ended(self._process.how_it_ended())
            return
        if elsewhere := self._followers.ended():
            self._vitals.ended(elsewhere)
            return
        unwell = self._client.unwell()
        if not unwell and self._spec.metrics:
            self._read_figures()
        now = time.monotonic()
        self._vitals.looked(now, unwell, self.figures)
        idle = self._probing is None or not self._probing.is_alive()
        if idle and self._client.probes and self._vitals.is_due(now):
            self._probing = threading.Thread(target=self._probe_once, daemon=True)
            self._probing.start()

    def _read_figures(self) -> None:
        try:
            self.figures = engine_figures.read(self.metrics(), self._spec.figures)
        except FOREIGN:
            return  # its health is asked for by itself

    def _probe_once(self) -> None:
        began, vitals = time.monotonic(), self._vitals
        wrong = self._client.probe()
        vitals.note_token(began, time.monotonic(), wrong)

    # --- what others ask for ---------------------------------------------------------------------

    def metrics(self) -> str:
        """Return the engine's figures as it tells them. Raises one of `FOREIGN`."""
        return self._client.metrics()

    def update(self, folder: Path, version: str) -> None:
        """Serve the weights of another folder from now on; blocks until they do.

        An engine that takes them while it runs is asked to, and must then give the texts that
        were recorded of the model their log-probabilities, or where none were, a fixed text
        other and finite ones than before; else it is started anew, at the same port.

        Raises:
            EngineStartError: It does not take them; the old ones are served again.
        """
        with self._changing:
            if not self.fault:  # a token that was asked for stands still meanwhile, and is no sign
                self._vitals = Vitals(self._spec, time.monotonic())
            if (
                self._deployment.endpoint.updates
                and self._spec.update
                and self._reload(folder, version)
            ):
                self._folder = folder
                return
            self._exchange(folder)

    def _reload(self, folder: Path, version: str) -> bool:
        """Have it read other weights while it runs; return whether it serves them rightly."""
        if not self._followers.see(folder):
            say("update: they lie elsewhere on its other nodes: it is started anew")
            return False
        recorded = self._proof_of(folder)
        before = [] if recorded.texts else self._client.scores(_TEXT)
        places = {"folder": str(folder), "version": version}
        for step in self._spec.update:
            if wrong := self._client.take(step, places):
                say(f"update: {wrong}")
                return False
        if recorded.texts:
            wrong = self._departure(folder)
        else:
            after = self._client.scores(_TEXT)
            wrong = "" if after and after != before else "it answers as before, or wrongly"
        if wrong:
            say(f"update: {wrong}")
        return not wrong

    def _exchange(self, folder: Path) -> None:
        """Start it anew with another folder; with the old one where it does not take that."""
        old, self._folder = self._folder, folder
        self._end(self._spec.grace)
        try:
            self._check()
            self._start(self.port)
        except EngineStartError:
            self._folder = old
            self._start(self.port)
            raise

    def _proof_of(self, folder: Path) -> proof.Proof:
        """Return what was recorded of the model in a folder."""
        own = proof.read(folder)
        return own if own.texts else self._proofs.get(folder, proof.NOTHING)

    def _departure(self, folder: Path) -> str:
        """Return why it computes another model than was recorded; empty where it does not."""
        recorded = self._proof_of(folder)
        served = []
        for text in recorded.texts:
            scores = self._client.scores(text.tokens)
            if scores is None:
                say("it tells no log-probabilities of a prompt: none are compared")
                return ""
            served.append(scores)
        deployment = self._deployment
        wrong = proof.departure(recorded, served, deployment.format, deployment.limits)
        if recorded.texts and not wrong:
            count = len(recorded.texts)
            say(f"it gives {count} texts the log-probabilities recorded of them")
        return wrong

    def drain(self, seconds: float) -> None:
        """Wait until nobody's request runs, so long at most."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.fault:
            self._read_figures()
            if not self.figures.running and not self.figures.waiting:
                return
            threading.Event().wait(_LOOK_SECONDS / 2)

    def stop(self) -> None:
        """End the engine and all that it started. Safe to call twice."""
        self._stopping.set()
        with self._changing:
            self._end(0.0 if self.fault else self._spec.grace)
        self._files.remove()

    def _end(self, grace: float) -> None:
        """End its processes on all nodes at once."""
        elsewhere = threading.Thread(target=self._followers.stop, args=(grace,), daemon=True)
        elsewhere.start()
        if self._process is not None:
            self._process.stop(grace)
        elsewhere.join()
