"""Values as tables: what the command line prints, and a notebook shows."""
