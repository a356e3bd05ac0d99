"""The agent loop as a plan without I/O.

It decides when to call the model, which tools to run, and when a limit is reached.
"""
