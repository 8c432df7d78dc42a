"""The same model, dealt out to two workers: by our job, by accelerate's FSDP2, by torchtitan.

Each of the three is a process a worker, which prints a line of JSON at its end (`Measured`).
"""
