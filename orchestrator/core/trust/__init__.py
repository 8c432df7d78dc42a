"""What a pool or a model has shown before it is relied upon."""
