"""Adapters: what implements the ports. Each translates the errors of what it wraps."""
