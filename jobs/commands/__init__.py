"""Stages that are a command: somebody's own training script, which imports nothing of ours."""
