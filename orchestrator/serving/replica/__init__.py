"""The replica side of an engine in the process: prompts, tokens, answers."""
