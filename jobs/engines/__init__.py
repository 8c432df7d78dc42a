"""Engines: each loads a model folder and generates text, behind `orchestrator.engine.Engine`."""

# By their names: to load them takes long.
EMBEDDED = "jobs.engines.embedded.EmbeddedEngine"
TRANSFORMERS = "jobs.engines.transformers_engine.TransformersEngine"
