"""Tools: a Python function with a schema, a registry of them, and the check of what a model hands over."""
