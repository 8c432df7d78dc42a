"""The code of a run: it travels by digest, through the artifact store, to where its jobs run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.errors import ArtifactError, ConfigError, Problem
from orchestrator.core.settings import Settings
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Json, Stage
from orchestrator.core.storage_uris import local_folder
from orchestrator.core.trust.qualification import measured
from orchestrator.node.job_import import import_path
from orchestrator.wiring.adapters import clock, database, variable
from orchestrator.wiring.home_folder import home_id
from orchestrator.wiring.secret_values import secret
from orchestrator.wiring.storage import artifact_store, storage_uri
from orchestrator.wiring.tracking import place

if TYPE_CHECKING:
    from orchestrator.adapters.user_code import Importable, Shipment
    from orchestrator.controller.attempt_requests import AttemptDefaults

_TRIES = 5  # somebody may be at work on the files


def travels(settings: Settings) -> bool:
    """Return whether code travels: not to what runs in this process."""
    return settings.cluster.kind != "local"


def weigh(settings: Settings, home: Path) -> tuple[Sequence[Problem], Sequence[str]]:
    """Return what is in the way of the code that would travel, and what is large in it."""
    from orchestrator.adapters import user_code

    if not travels(settings):
        return (), ()
    return user_code.weigh(_shipment(settings, home), settings.jobs.most_mb)


def job_forecasts(
    settings: Settings, home: Path, plan: Plan
) -> tuple[Sequence[Problem], Sequence[str]]:
    """Return why jobs can't do what their stages say, and what they will take, as they say."""
    from orchestrator.adapters import user_code

    cache = _user_cache()
    kept = cache / "orchestrator" / "forecasts.json" if cache else None
    return user_code.forecasts(plan, settings.jobs, _importable(settings, home), kept)


def job_default(settings: Settings, job: str, parameter: str) -> Json:
    """Return what a job takes where no config gives a parameter; `None` where none is written."""
    from orchestrator.adapters import user_code

    return user_code.default_of(job, parameter, settings.jobs)


def _user_cache() -> Path | None:
    """Return the folder of caches, as XDG base directories have it; a user may have none."""
    if folder := variable("XDG_CACHE_HOME"):
        return Path(folder)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no $HOME, and no such user
        return None


def ship(
    settings: Settings, home: Path, run: str, code: ShippedCode | None = None
) -> ShippedCode | None:
    """Have the code of `run` in the artifact store, and return it; `None` where nothing travels.

    It is what is here, or the `code` of an earlier run. A mark beside it says that the run has
    it, before it is looked for: so nobody takes it away before the run is recorded.

    Raises:
        ConfigError: It is too much, or can't be read.
        ArtifactError: A file can't be read, or the store takes nothing.
    """
    if not travels(settings):
        return None
    uri, patience = storage_uri(settings, home), settings.attempts.storage
    store = artifact_store(uri, clock(), patience)
    used = json.dumps({"at": database(home).now(), "home": home_id(home)})
    if code is not None:
        key = artifact_paths.key_of_code(code.archive.uri)
        store.mark(artifact_paths.user_of_code(key, run), used)
        return code
    problems, _ = weigh(settings, home)
    if problems:
        raise ConfigError(problems)
    shipment = _shipment(settings, home)
    for _ in range(_TRIES):
        key = shipment.key()
        if not key:
            return None
        name = artifact_paths.code(key)
        store.mark(artifact_paths.user_of_code(key, run), used)
        archive = store.archive(name, shipment.files())
        if shipment.key() == key:
            return ShippedCode(archive, shipment.packages)
        store.remove(name)
        store.remove(artifact_paths.user_of_code(key, run))
    raise ArtifactError("the files of jobs.code change all the time; launch when they are at rest")


def changed(settings: Settings, home: Path, code: ShippedCode | None) -> bool:
    """Return whether the code that is here differs from the `code` of a run.

    It doesn't where it is not here: then the run has its own.
    """
    if not travels(settings) or with_code(settings, home, code)[1] is not None:
        return False
    key = _shipment(settings, home).key()
    return bool(key) and (code is None or not code.archive.uri.endswith(artifact_paths.code(key)))


def with_code(
    settings: Settings, home: Path, code: ShippedCode | None
) -> tuple[Settings, ShippedCode | None]:
    """Return settings that can be planned here, and the code where it is not to be read here.

    That is the `code` of an earlier run, where the packages of its jobs are on another machine.
    """
    if code is None or _is_here(settings):
        return settings, None
    folders = _unpacked(settings, home, code)
    return replace(settings, jobs=replace(settings.jobs, code=folders)), code


def _is_here(settings: Settings) -> bool:
    """Return whether all packages are in the folders of `jobs.code`, or are installed."""
    folders = [Path(folder) for folder in settings.jobs.code]
    names = {name.partition(".")[0] for name in settings.jobs.packages}
    return all(folder.is_dir() for folder in folders) and all(
        any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for folder in folders)
        or find_spec(name) is not None
        for name in names
    )


def attempt_defaults(settings: Settings, home: Path, *, reuse: bool = True) -> AttemptDefaults:
    """Return what every attempt of a run is given."""
    from orchestrator.controller.attempt_requests import AttemptDefaults
    from orchestrator.controller.reuse import never_reuse, reuse_key_with

    return AttemptDefaults(
        packages=settings.jobs.packages,
        code=settings.jobs.code,
        storage=storage_uri(settings, home),
        room=settings.storage.room,
        reuse_key=reuse_key_with(_source_of(settings, home)) if reuse else never_reuse,
        signatures=tuple(settings.signatures.values()),
        waits=settings.attempts,
        measured=lambda pool, role: measured(pool, role, database(home).verdicts()),
        secret=secret,
        tracked=lambda: place(settings, home),
    )


def _source_of(settings: Settings, home: Path) -> Callable[[Stage, ShippedCode | None], str]:
    """Return what tells all that a job can import: as it was shipped, or as it is here."""
    from orchestrator.adapters import user_code

    @cache
    def importable(code: ShippedCode | None) -> Importable:
        if code is None:
            return _importable(settings, home)
        folders = _unpacked(settings, home, code)
        beside = [folder for folder in folders if Path(folder).name == user_code.PACKAGES]
        inside = [folder for folder in folders if folder not in beside]
        return _importable(settings, home, inside, beside)

    return lambda stage, code: importable(code).digest(stage)


def _importable(
    settings: Settings, home: Path, code: Sequence[str] | None = None, beside: Sequence[str] = ()
) -> Importable:
    """Return what tells all that jobs can import from folders of `code`, else of `jobs.code`."""
    from orchestrator.adapters import user_code

    folders = settings.jobs.code if code is None else code
    kept, apart = home / "code.json", _apart(settings, home)
    return user_code.Importable(folders, beside=beside, kept=kept, apart=apart)


def _unpacked(settings: Settings, home: Path, code: ShippedCode) -> tuple[str, ...]:
    store = artifact_store(storage_uri(settings, home), clock(), settings.attempts.storage)
    return import_path((), code, store.unpack)


def _shipment(settings: Settings, home: Path) -> Shipment:
    from orchestrator.adapters import user_code

    files = user_code.CodeFiles(home / "code.json", _apart(settings, home))
    return user_code.Shipment(settings.jobs, files)


def _apart(settings: Settings, home: Path) -> Sequence[Path]:
    """Return the folders that hold no code, wherever they are."""
    folder = local_folder(storage_uri(settings, home))
    return [home, folder] if folder else [home]
