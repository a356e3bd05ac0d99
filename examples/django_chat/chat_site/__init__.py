"""The site of the example."""
