"""What drives a run, and what runs in each worker: the loop and the attempt."""
