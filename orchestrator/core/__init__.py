"""Values and decisions of the control plane. Standard library only; no input, no output."""
