"""A run as the fold of its events, and what to do next."""
