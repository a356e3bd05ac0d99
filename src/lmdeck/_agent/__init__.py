"""The agent loop: a plan of what to ask the model and which tools to run, and its limits. It does no I/O."""
