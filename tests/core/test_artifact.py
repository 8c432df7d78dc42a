"""References to artifacts and their manifests."""

from __future__ import annotations

from orchestrator.core.artifact import FileEntry, Manifest

ONE = FileEntry(3, "a" * 64)
TWO = FileEntry(5, "b" * 64)


def test_equal_contents_have_equal_digests_whatever_the_order_and_the_meta() -> None:
    here = Manifest({"x": ONE, "y/z": TWO}, {"step": "1"})
    there = Manifest({"y/z": TWO, "x": ONE})
    assert here.digest == there.digest
    assert len(here.digest) == 64


def test_another_name_size_or_hash_is_another_digest() -> None:
    seen = {
        Manifest({"x": ONE}).digest,
        Manifest({"y": ONE}).digest,
        Manifest({"x": TWO}).digest,
        Manifest({"x": FileEntry(4, "a" * 64)}).digest,
        Manifest({}).digest,
    }
    assert len(seen) == 5


def test_the_size_of_a_manifest_is_that_of_its_files() -> None:
    assert Manifest({"x": ONE, "y": TWO}).size == 8
    assert Manifest({}).size == 0
