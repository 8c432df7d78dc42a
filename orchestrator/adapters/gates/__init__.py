"""Looks whether what stages wait for is there: files, URLs, approvals."""

from orchestrator.adapters.gates.conditions import GateConditions

__all__ = ["GateConditions"]
