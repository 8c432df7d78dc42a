"""The gateway: an OpenAI-compatible HTTP face for any engine. It knows no cluster."""
