"""The gateway: who may ask, who is asked, what it costs, and an answer's way back."""
