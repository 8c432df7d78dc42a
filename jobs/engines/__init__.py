"""Engines: each loads a model folder and generates text, behind `orchestrator.engine.Engine`."""
