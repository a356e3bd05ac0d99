"""The agent loop, as a plan without I/O: when to call the model, which tools to run, and limits."""
