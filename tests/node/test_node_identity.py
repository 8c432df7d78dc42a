"""A node is told apart by what it is made of, not by what it is called or how often it started."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.node import node_identity
from orchestrator.node.node_identity import chips, identify, machine, objection, serials
from tests.build import accelerator, pool


def tool(*lines: str, code: int = 0) -> tuple[str, ...]:
    """Return a command that says `lines`, as a maker's tool does."""
    return ("sh", "-c", f"printf '%s\\n' {' '.join(map(repr, lines))}; exit {code}")


def test_a_node_is_its_chips_in_whatever_order_they_are_told() -> None:
    assert serials(tool("GPU-2 ", "", "GPU-1")) == ["GPU-1", "GPU-2"]
    both = identify(tool("GPU-2", "GPU-1"))
    assert identify(tool("GPU-1", "GPU-2")) == both
    assert identify(tool("GPU-1", "GPU-3")) != both, "one was exchanged"
    assert identify(tool("GPU-1")) != both, "one was taken out"


@pytest.mark.parametrize("command", [(), ("no-such-tool",), tool("GPU-1", code=9), tool()])
def test_a_tool_that_does_not_tell_leaves_the_machine_itself(command: tuple[str, ...]) -> None:
    assert serials(command) == []
    assert identify(command) == identify(()) == identify(())


def test_a_tool_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/asked && echo GPU-1 || {{ touch {tmp_path}/asked; exit 9; }}"
    assert serials(("sh", "-c", script)) == ["GPU-1"]


def test_a_machine_is_its_id_its_name_and_the_chips_on_its_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "machine-id"
    named.write_text("3f2a\n")
    assert next(machine(named)) == "3f2a"
    assert len(list(machine(tmp_path / "none"))) == 1
    bus = tmp_path / "devices"
    for slot, kind, device in (("03:00.0", "0x120000", "0x2330"), ("00:1f.0", "0x060100", "0x1")):
        (bus / slot).mkdir(parents=True)
        (bus / slot / "class").write_text(f"{kind}\n")
        for name in ("vendor", "subsystem_vendor", "subsystem_device"):
            (bus / slot / name).write_text("0x10de\n")
        (bus / slot / "device").write_text(f"{device}\n")
    assert list(chips(bus)) == ["03:00.0 0x10de 0x2330 0x10de 0x10de"]
    monkeypatch.setattr(node_identity, "chips", lambda: chips(bus))
    before = identify(())
    (bus / "03:00.0" / "device").write_text("0x2331\n")
    assert identify(()) != before


def test_a_node_that_was_not_measured_is_refused_by_its_name_where_somebody_asks() -> None:
    own = pool("h100", chip=accelerator(identity=tool("GPU-1")))
    assert objection(own, (identify(tool("GPU-1")),), lambda: "n3") == ""
    assert objection(own, None, lambda: "n3") == ""
    said = objection(own, (identify(tool("GPU-2")),), lambda: "n3")
    assert said.startswith("node 'n3' of pool 'h100' is not among those that were qualified")
    assert said.endswith("`orchestrator qualify h100` measures what is there")
    assert objection(own, (), lambda: "n3") == said, "the verdict tells no nodes"
