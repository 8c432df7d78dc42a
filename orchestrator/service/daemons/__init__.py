"""The services of a home as processes: what looks after runs, keeps endpoints, answers clients."""
