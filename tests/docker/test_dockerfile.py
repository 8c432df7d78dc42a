"""The image, checked without building it: rules of hadolint, and ties to the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def args_of(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this machine")
    done = subprocess.run(
        [hadolint, "--no-color", DOCKERFILE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_an_argument_and_pinned_to_a_python_that_the_package_allows() -> None:
    (base,) = [rest for rest in args_of("ARG") if rest.startswith("BASE_IMAGE=")]
    pinned = re.fullmatch(r"BASE_IMAGE=python:(3\.\d+)\.\d+-slim-\w+", base)
    assert pinned
    assert PROJECT["requires-python"] == f">={pinned[1]}"
    assert {rest.split()[0] for rest in args_of("FROM")} == {"${BASE_IMAGE}"}


def test_the_process_is_not_root() -> None:
    (user,) = args_of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [name for name, _ in STEPS]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")


def test_nothing_is_piped_from_the_network_into_a_shell() -> None:
    assert not re.search(r"\b(curl|wget)\b", TEXT)
    assert args_of("ADD") == []


def test_the_entry_point_is_the_command_and_its_health_is_a_subcommand() -> None:
    assert json.loads(args_of("ENTRYPOINT")[0]) == [*PROJECT["scripts"]]
    (health,) = args_of("HEALTHCHECK")
    command = json.loads(health[health.index("[") :])
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0


def test_what_is_copied_is_there_and_let_through_to_the_build() -> None:
    copied = [
        path.removeprefix("./")
        for rest in args_of("COPY")
        if not rest.startswith("--from")
        for path in rest.split()[:-1]
    ]
    ignored = (ROOT / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))


def test_the_page_names_the_base_of_each_maker() -> None:
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    files = (ROOT / "conf/accelerator").glob("*.yaml")
    makers = {yaml.safe_load(path.read_text(encoding="utf-8"))["vendor"] for path in files}
    rows = "".join(line for line in page.splitlines() if line.startswith("| "))
    assert [maker for maker in sorted(makers - {"generic"}) if f"`{maker}`" not in rows] == []
    for name in re.findall(r"`([A-Z_]+)`", rows):
        assert not name.endswith(("_IMAGE", "_PACKAGES")) or f"ARG {name}" in TEXT


def test_the_packages_are_those_of_the_lock_and_the_lock_is_that_of_the_project() -> None:
    assert "-r wanted.lock" in TEXT
    extras = ("postgres", "s3")
    locks = ("requirements.lock", *(f"requirements-{extra}.lock" for extra in extras))
    assert " ".join(locks) in args_of("COPY")[0]
    lock = [line for name in locks for line in (ROOT / name).read_text("utf-8").splitlines()]
    more = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    asked = [re.sub(r"\[.*\]", "", line) for line in [*PROJECT["dependencies"], *more]]
    assert [line for line in asked if line not in lock] == []
