"""Training of what one chip can't hold: which rank has which part of the model."""
