"""What torchtitan needs to train here: a recipe of its debug model, and a shim for the CPU."""
