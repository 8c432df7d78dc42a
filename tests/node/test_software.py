"""A process that runs something else than its controller opens nothing that it is sent."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import orchestrator
from orchestrator.core.artifact import ArtifactRef, ShippedCode
from orchestrator.core.errors import SoftwareError
from orchestrator.node import software

CODE = ShippedCode(ArtifactRef("file:///s/code/a", "d" * 64, 1))


def node() -> str:
    return "h4"


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    yield
    software.package.cache_clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed here."""
    package = tmp_path / "site-packages" / "acmejobs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_what_the_same_software_is_sent_it_reads() -> None:
    parcel = software.sealed(pickle.dumps(("work", 1)), ("jobs",), None)
    assert software.opened(parcel, node) == ("work", 1)


@pytest.mark.parametrize(
    ("name", "version", "here"),
    [
        ("orchestrator", "0.0.9 (0123456789ab)", f"{orchestrator.__version__} ("),
        ("Ray", "1.0.0", "2."),
        ("Python", "3.99.1", platform.python_version()),
        ("package acmejobs", "1.0 (0123456789ab)", "none"),
    ],
)
def test_what_differs_is_named_with_both_versions_and_the_node_and_nothing_is_read(
    name: str, version: str, here: str
) -> None:
    wanted, _ = software.sealed(b"", (), None)
    with pytest.raises(SoftwareError) as refused:
        software.opened(({**wanted, name: version}, b"no pickle"), node)
    line = str(refused.value)
    assert line.startswith(f"node 'h4' runs {name} '{here}")
    assert line.endswith(f" and its controller {version!r}; install the same there")


def test_what_mends_python_alone_is_no_difference() -> None:
    wanted, content = software.sealed(pickle.dumps(1), (), None)
    mended = ".".join((*platform.python_version().split(".")[:2], "999"))
    assert software.opened(({**wanted, "Python": mended}, content), node) == 1


def test_a_file_of_an_installed_package_of_jobs_that_differs_is_a_difference(
    installed: Path,
) -> None:
    parcel = software.sealed(pickle.dumps(1), ("acmejobs.train", "no_such"), None)
    (installed / "__pycache__").mkdir()
    (installed / "__pycache__" / "x.pyc").touch()
    (installed / ".x.swp").touch()
    software.package.cache_clear()
    assert software.opened(parcel, node) == 1
    (installed / "prompt.yaml").touch()
    software.package.cache_clear()
    with pytest.raises(SoftwareError, match=r"package acmejobs '\([0-9a-f]{12}\)' and its contr"):
        software.opened(parcel, node)


def test_what_was_shipped_need_not_be_installed_alike(installed: Path) -> None:
    wanted, _ = software.sealed(b"", ("acmejobs",), replace(CODE, packages=("acmejobs",)))
    assert "package acmejobs" not in wanted
    assert "package acmejobs" in software.sealed(b"", ("acmejobs",), CODE)[0]


def test_a_process_tells_what_it_runs() -> None:
    told = software.running("no_such_torch", CODE)
    assert told.keys() == {"orchestrator", "Python", "Ray", "torch", "code"}
    assert told["code"] == "d" * 64
    assert told["Python"] == platform.python_version()


def test_workers_of_a_gang_are_compared_by_what_computes() -> None:
    one = {"torch": "2.8.0", "torch_npu": "2.8.0", "Python": "3.11.1"}
    assert software.unlike(one, {**one, "Python": "3.11.2"}, "torch_npu") == ""
    other = {"torch": "2.7.0"}
    assert software.unlike(one, other, "torch_npu") == (
        "torch '2.8.0' and '2.7.0', torch_npu '2.8.0' and 'none'"
    )
    assert software.unlike(one, other, None) == "torch '2.8.0' and '2.7.0'"
