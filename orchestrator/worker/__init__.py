"""What runs in the processes of an attempt: the job's context, checkpoints, output, heartbeat."""
