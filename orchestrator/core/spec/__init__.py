"""What a user declares, what is wrong with it, and the plan that comes of it."""
