"""One pipeline, two kinds of hardware: plan, launch and review pipelines over mixed pools."""

__version__ = "0.2.0"
