"""Whether what is served does what was trained: a reference pass, and the gate that compares.

`reference.measure` runs where the model was trained, `gate.check` where it will be served,
through the engine that will serve it. Both answer the same held-out questions.
"""
