"""The use cases: what a command, a server or a notebook can ask for, one function each.

Values in, values or an iterator of them out: nothing here prints, parses a command line, or asks
anybody. What changes something is a `Change` until somebody makes it, so that each can be shown
first. A run that goes on is shown by a `View`.
"""
