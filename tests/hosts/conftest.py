"""What the tests on hosts share: where hosts log, and a site that is mended after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.namespaces import lacking
from tests.hosts.services import services_lacking
from tests.hosts.site import Site


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which hosts log; who asks for it is skipped where there can be no hosts."""
    if why := lacking() or services_lacking():
        pytest.skip(why)
    return tmp_path_factory.mktemp("logs")


@pytest.fixture
def lab(built: Site) -> Iterator[Site]:
    """The site of the module, with all that was lost before mended."""
    yield built
    built.mend()
