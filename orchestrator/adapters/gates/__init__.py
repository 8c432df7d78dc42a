"""Looks whether what stages wait for is there: files, URLs, approvals."""

from orchestrator.adapters.gates.outside import OutsideGates

__all__ = ["OutsideGates"]
