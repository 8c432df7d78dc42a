"""What both adapters of Ray ask it: its head by its protocol, and which chips a process has."""
