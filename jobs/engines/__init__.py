"""Engines: each loads a model folder and generates text, behind `orchestrator.engine.Engine`."""

EMBEDDED = "jobs.engines.embedded.EmbeddedEngine"  # by its name: to load it takes long
