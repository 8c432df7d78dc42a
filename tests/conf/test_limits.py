"""The limits of the parity gate go with a revision, into the database and back."""

from __future__ import annotations

from typing import get_type_hints

import yaml
from pydantic import TypeAdapter

from orchestrator.core.endpoints.life import Deployment
from tests.conf.test_shipped import CONF


def test_the_limits_of_the_parity_gate_are_read_as_they_are_stored() -> None:
    limits = yaml.safe_load((CONF / "job/parity.yaml").read_text("utf-8"))["params"]["limits"]
    stored = {form: float(len(form)) for form in limits}
    assert "fp16" in stored
    adapter = TypeAdapter(get_type_hints(Deployment)["limits"])
    assert adapter.validate_python(stored) == stored
