"""The steps, each in a file; `down_revision` says which one it follows."""
