"""What every command needs of the machine: folders, user, clock, its errors in words."""

from orchestrator.wiring import (
    check_working_folder,
    clock,
    has_database,
    home,
    home_path,
    provide_user,
    refusal,
    variable,
)

__all__ = [
    "check_working_folder",
    "clock",
    "has_database",
    "home",
    "home_path",
    "provide_user",
    "refusal",
    "variable",
]
