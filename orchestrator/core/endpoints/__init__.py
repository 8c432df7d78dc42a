"""A stable address, the revisions behind it, and how one takes over from another."""
