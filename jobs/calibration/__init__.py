"""Weights that are quantized by a recipe of llm-compressor, from rows of a data set."""
