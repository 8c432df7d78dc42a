"""Settings that have another name than in an earlier version.

Whoever writes the old name is told the new one; a config that is stored with a run is read on.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.spec.stages import Json

MOVED: Mapping[tuple[str, str], tuple[str, str]] = {("cluster", "serve_port"): ("gateway", "port")}


def forward(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return `config` with its settings under the names of today."""
    whole = dict(config)
    for (group, key), (new_group, new_key) in MOVED.items():
        holder = whole.get(group)
        if isinstance(holder, Mapping) and key in holder:
            whole[group] = {name: value for name, value in holder.items() if name != key}
            now = whole.get(new_group)
            before = now if isinstance(now, Mapping) else {}
            whole[new_group] = {**before, new_key: holder[key]}
    return whole


def hint(path: tuple[str, ...]) -> str:
    """Return what the setting at `path` is called today, as the way out; empty if it never was."""
    new = MOVED.get((path[0], path[-1])) if len(path) > 1 else None
    return "" if new is None else f"it is {'.'.join(new)} now"
