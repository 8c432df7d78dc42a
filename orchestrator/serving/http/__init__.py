"""What gateway and replica share of HTTP: ASGI, errors, limits, and the fields of the API."""
