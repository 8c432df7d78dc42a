"""Data sets: how they are made, and the one folder format that training and evaluation read."""
