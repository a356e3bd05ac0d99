"""Tools: Python functions with a schema, their registry, and the validation of arguments."""
