"""Serving over HTTP: the gateway, the replica side of an engine, and what both share.

It knows no cluster.
"""
