"""The versions of models that endpoints serve, as the registry has them; promote one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from orchestrator import wiring
from orchestrator.core.errors import ConfigError, NotFoundError, Problem
from orchestrator.core.trust.model_versions import CANDIDATE, ModelVersion, Parity
from orchestrator.service.change import Change


def versions(model: str = "", *, start: bool = True) -> Sequence[ModelVersion]:
    """Return the versions of all models, or of one, newest first.

    Without `start` a registry that is down stays down, and has none.
    """
    with closing(wiring.registry(wiring.home(), start=start)) as registry:
        return registry.versions(model)


def promote(
    model: str, version: int | None, *, force: str = "", start: bool = True
) -> Change[ModelVersion]:
    """Make a version, or the candidate, the champion of its model; no traffic moves by that.

    Raises:
        NotFoundError: There is no such version.
        ConfigError: It was not seen to do what was trained, and `force` does not say why it may.
    """
    chosen = choose(model, version, versions(model, start=start))
    check_parity(chosen, force)

    def make() -> ModelVersion:
        why = f", who forced it: {force}" if force else ""
        with closing(wiring.registry(wiring.home())) as registry:
            registry.promote(chosen, f"by {wiring.user()}{why}")
        return chosen

    return Change(f"make version {chosen.number} of {chosen.name} the champion", make)


def check_parity(chosen: ModelVersion, force: str) -> None:
    """Refuse what was not seen to do what was trained, unless `force` says why it may.

    Raises:
        ConfigError: It may not.
    """
    if chosen.parity == Parity.PASSED or force:
        return
    reason = chosen.tags.get("parity.reason")
    what = f"version {chosen.number} of {chosen.name!r}: parity is {chosen.parity!r}"
    said = f"{what} ({reason})" if reason else what
    raise ConfigError([Problem("promote", said, "--force REASON promotes it all the same")])


def choose(model: str, version: int | None, versions: Sequence[ModelVersion]) -> ModelVersion:
    """Return a version of a model by its number, or the candidate.

    Raises:
        NotFoundError: There is none.
    """
    if not versions:
        raise NotFoundError(f"no model {model!r} is registered; `orchestrator models` lists all")
    known = ", ".join(str(registered.number) for registered in versions)
    for registered in versions:
        if registered.number == version or (version is None and CANDIDATE in registered.aliases):
            return registered
    what = "candidate" if version is None else f"version {version!r}"
    raise NotFoundError(f"model {model!r} has no {what}; versions: {known}")
