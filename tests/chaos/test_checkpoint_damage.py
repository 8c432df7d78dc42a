"""Damaged checkpoints: all of it is found, none is loaded, and the newest good one is taken."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.artifact import MANIFEST_NAME
from tests.chaos.tables import Rows, draw, show
from tests.chaos.writers import PREFIX, Gang, name_of


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Rows]:
    """Rows that are printed at the end."""
    rows: Rows = []
    yield rows
    show(request.config, rows)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Three checkpoints of an attempt, the newest of step 3."""
    gang = Gang(tmp_path, 1)
    gang.resume()
    gang.save_all(range(1, 4))
    return tmp_path


def files(root: Path, step: int) -> list[Path]:
    found = (root / PREFIX / name_of(step, 1)).rglob("*")
    return sorted(path for path in found if path.is_file())


def flip(path: Path, drawn: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, drawn: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: drawn.randrange(path.stat().st_size)])


def lengthen(path: Path, drawn: random.Random) -> None:
    path.write_bytes(path.read_bytes() + drawn.randbytes(1 + drawn.randrange(9)))


def lose(path: Path, drawn: random.Random) -> None:
    path.unlink()


def lose_shard(path: Path, drawn: random.Random) -> None:
    shutil.rmtree(_checkpoint(path) / f"rank-{drawn.randrange(2)}")


def swap_shards(path: Path, drawn: random.Random) -> None:
    folder = _checkpoint(path)
    (folder / "rank-0").rename(folder / "x")
    (folder / "rank-1").rename(folder / "rank-0")
    (folder / "x").rename(folder / "rank-1")


def swap_files(path: Path, drawn: random.Random) -> None:
    folder = _checkpoint(path)
    first, second = folder / "rank-0/a.bin", folder / "rank-1/a.bin"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def take_a_shard_of_another(path: Path, drawn: random.Random) -> None:
    folder = _checkpoint(path)
    step = int(folder.name.split("-")[1])
    other = folder.with_name(name_of(step % 3 + 1, 1))
    shutil.rmtree(folder / "rank-1")
    shutil.copytree(other / "rank-1", folder / "rank-1")


def take_the_place_of_another(path: Path, drawn: random.Random) -> None:
    folder = _checkpoint(path)
    other = folder.with_name(name_of(int(folder.name.split("-")[1]) % 3 + 1, 1))
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def _checkpoint(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name.startswith("step-"))


@pytest.mark.parametrize(
    ("damage", "count"),
    [
        (flip, 25),
        pytest.param(flip, 1000, marks=[pytest.mark.chaos, pytest.mark.timeout(1200)]),
        *(
            case
            for damage in (
                truncate,
                lengthen,
                lose,
                lose_shard,
                swap_shards,
                swap_files,
                take_a_shard_of_another,
                take_the_place_of_another,
            )
            for case in (
                (damage, 2),
                pytest.param(damage, 100, marks=[pytest.mark.chaos, pytest.mark.timeout(600)]),
            )
        ),
    ],
)
def test_damage_is_found_and_the_newest_good_one_taken(
    saved: Path,
    table: Rows,
    damage: Callable[[Path, random.Random], None],
    count: int,
) -> None:
    drawn = draw(damage.__name__)
    spare = saved.with_name(f"{saved.name}-spare")
    shutil.copytree(saved / PREFIX, spare)
    found = 0
    for number in range(count):
        hit = {3} if number % 4 else {3, 2}
        for step in hit:
            damage(drawn.choice(files(saved, step)), drawn)
        found += Gang(saved, 2).peek() == 3 - len(hit)
        for step in hit:
            folder = saved / PREFIX / name_of(step, 1)
            shutil.rmtree(folder)
            shutil.copytree(spare / folder.name, folder)
    assert Gang(saved, 2).peek() == 3
    table.append(
        (damage.__name__.replace("_", " "), f"{found} of {count} found, {count - found} loaded")
    )
    assert found == count


def test_without_any_good_one_it_begins_anew(saved: Path) -> None:
    for step in (1, 2, 3):
        (saved / PREFIX / name_of(step, 1) / MANIFEST_NAME).unlink()
    assert Gang(saved, 2).resume() == 0
