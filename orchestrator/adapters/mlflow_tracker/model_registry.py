"""The model registry of an MLflow server, by REST: the port `Registry`, and how versions are made.

A version's source is a logged model of MLflow, because the server takes no file path that isn't
its own as a source. That model holds no weights but `artifact.json`: where the weights are, and
the digest that proves them. Every verb may be repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from orchestrator.adapters.mlflow_tracker import fields
from orchestrator.adapters.mlflow_tracker.mlflow_errors import RefusedError
from orchestrator.adapters.mlflow_tracker.rest import Rest, ServerAccess
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import EndpointLife
from orchestrator.core.trust.model_versions import CHAMPION, KEY, Entry, ModelVersion, leader

_MOVED = "orchestrator.moved_at"
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_PAGE = "100"
_PROXIED = "mlflow-artifacts:/"
_POINTER = "artifact.json"


class Models:
    """The registered models of a server. Not for use by two threads at once."""

    def __init__(self, uri: str, access: ServerAccess | None = None) -> None:
        """Remember where; nothing is asked yet."""
        self._rest = Rest(uri, access or ServerAccess())
        self._folders: dict[str, str] = {}

    def close(self) -> None:
        """Leave the server. Safe to call twice."""
        self._rest.close()

    # --- the port ------------------------------------------------------------------------------

    def versions(self, model: str = "") -> Sequence[ModelVersion]:
        """Return the versions of `model`, or of all models, newest first."""
        where = {"filter": f"name = '{model}'"} if model else {}
        versions = [_version(fields) for fields in self._pages("model-versions/search", where)]
        aliases = {name: self._aliases(name) for name in {version.name for version in versions}}
        named = [
            replace(version, aliases=_of(aliases[version.name], version.number))
            for version in versions
        ]
        return sorted(named, key=lambda version: (version.created, version.number), reverse=True)

    def promote(self, version: ModelVersion, note: str) -> None:
        """Make `version` the champion of its model; `note` says who did so, and why."""
        self.alias(version, CHAMPION)
        self.tag(version, {"promoted": note})

    def follow(self, life: EndpointLife) -> ModelVersion | None:
        """Make the champion what one endpoint gives all traffic to; return it, if that is new.

        Each move counts once: what somebody promotes later stays until the traffic moves again.
        """
        led = leader(life)
        model = self._model(life.name)
        if led is None or model is None:
            return None
        (at, key), tags = led, _tags(model)
        if at <= float(tags.get(_MOVED, "-inf")):
            return None
        champion = next(
            (version for version in self.versions(life.name) if version.key == key), None
        )
        if champion is None and key:
            return None  # it is not registered yet
        if champion is not None:
            self.alias(champion, CHAMPION)
        mark = {"name": life.name, "key": _MOVED, "value": repr(at)}
        self._rest.post("registered-models/set-tag", mark)
        return champion

    # --- versions ------------------------------------------------------------------------------

    def create(self, entry: Entry, experiment: str, run: str) -> ModelVersion:
        """Make a version that is not there; `run` is the MLflow run that it comes from."""
        if self._model(entry.name) is None:
            what = f"What endpoint {entry.name} serves, one version for each model and pool."
            self._rest.post("registered-models/create", {"name": entry.name, "description": what})
        logged = self._logged(entry, experiment) or self._log(entry, experiment, run)
        answer = self._rest.post(
            "model-versions/create",
            {
                "name": entry.name,
                "source": f"models:/{logged}",
                "run_id": run,
                "model_id": logged,
                "description": _description(entry),
                "tags": _pairs(entry.tags),
            },
        )
        return replace(_version(answer["model_version"]), tags=clean(entry.tags))

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> ModelVersion:
        """Write the tags that differ; return the version with them."""
        place = {"name": version.name, "version": str(version.number)}
        new = {k: v for k, v in clean(tags).items() if version.tags.get(k) != v}
        for key, value in new.items():
            self._rest.post("model-versions/set-tag", {**place, "key": key, "value": value})
        return replace(version, tags={**version.tags, **new})

    def describe(self, version: ModelVersion, entry: Entry) -> None:
        """Write what a reader sees first."""
        place = {"name": version.name, "version": str(version.number)}
        self._rest.patch("model-versions/update", {**place, "description": _description(entry)})

    def alias(self, version: ModelVersion, alias: str) -> None:
        """Point an alias at a version."""
        place = {"name": version.name, "version": str(version.number)}
        self._rest.post("registered-models/alias", {**place, "alias": alias})

    def measure(self, version: ModelVersion, run: str, figures: Mapping[str, float]) -> None:
        """Tie metrics of the MLflow run `run` to the model of a version."""
        at = round(version.created * 1000)
        points = [
            {
                "key": fields.name(key),
                "value": value,
                "timestamp": at,
                "step": 0,
                "model_id": version.model_id,
            }
            for key, value in figures.items()
        ]
        if points and version.model_id:
            self._rest.post("runs/log-batch", {"run_id": run, "metrics": points})

    def attach(self, version: ModelVersion, name: str, text: str) -> None:
        """Put a text file beside the pointer of a version's model."""
        answer = self._rest.get(f"logged-models/{version.model_id}")
        self._put(str(answer["model"]["info"].get("artifact_uri", "")), name, text)

    # --- requests ------------------------------------------------------------------------------

    def _logged(self, entry: Entry, experiment: str) -> str | None:
        """Return the logged model that an earlier try has left."""
        where = {"experiment_ids": [experiment], "filter": f"tags.`{KEY}` = '{entry.key}'"}
        models = self._rest.post("logged-models/search", where).get("models", ())
        return next((str(model["info"]["model_id"]) for model in models), None)

    def _log(self, entry: Entry, experiment: str, run: str) -> str:
        info = self._rest.post(
            "logged-models",
            {
                "experiment_id": experiment,
                "name": _NO_NAME.sub("-", entry.name),
                "model_type": "orchestrator",
                "source_run_id": run,
                "tags": _pairs(entry.tags),
            },
        )["model"]["info"]
        logged = str(info["model_id"])
        self._put(str(info.get("artifact_uri", "")), _POINTER, _pointer(entry.model))
        status = {"model_id": logged, "status": "LOGGED_MODEL_READY"}
        self._rest.patch(f"logged-models/{logged}", status)
        output = {"run_id": run, "models": [{"model_id": logged, "step": 0}]}
        self._rest.post("runs/outputs", output)
        return logged

    def _put(self, folder: str, name: str, text: str) -> None:
        if folder.startswith(_PROXIED):
            place = folder.removeprefix(_PROXIED).strip("/")
            self._rest.put_artifact(f"{place}/{name}", text.encode())

    def _model(self, name: str) -> Mapping[str, Any] | None:
        try:
            answer = self._rest.get("registered-models/get", name=name)
        except RefusedError:
            return None
        return dict(answer["registered_model"])

    def _aliases(self, name: str) -> list[Mapping[str, str]]:
        return list((self._model(name) or {}).get("aliases", ()))

    def _pages(self, path: str, where: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        asked = {**where, "max_results": _PAGE}
        while True:
            page = self._rest.get(path, **asked)
            yield from page.get("model_versions", ())
            if not page.get("next_page_token"):
                return
            asked["page_token"] = page["next_page_token"]


def _version(fields: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=fields["name"],
        number=int(fields["version"]),
        source=fields.get("source", ""),
        run_id=fields.get("run_id", ""),
        created=int(fields.get("creation_timestamp", 0)) / 1000,
        tags=_tags(fields),
    )


def _of(aliases: Sequence[Mapping[str, str]], number: int) -> tuple[str, ...]:
    return tuple(sorted(alias["alias"] for alias in aliases if int(alias["version"]) == number))


def _tags(fields: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in fields.get("tags", ())}


def clean(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as MLflow takes them."""
    return {fields.name(k): fields.cut(v, fields.MAX_TAG) for k, v in tags.items() if v}


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in clean(tags).items()]


def _pointer(model: ArtifactRef) -> str:
    return json.dumps(asdict(model), indent=1)


def _description(entry: Entry) -> str:
    """Return where a version comes from, in two sentences."""
    tags = entry.tags
    reason = f" ({tags['parity.reason']})" if "parity.reason" in tags else ""
    emulated = " (emulated)" if tags["emulated"] == "true" else ""
    return (
        f"Exported in {tags['format'] or 'its own format'} by stage {tags['stage']} of run "
        f"{tags['run']} for pool {tags['pool']}{emulated}. "
        f"Compared with what was trained: {tags['parity']}{reason}."
    )
