"""The sources of the settings and their checks; `lmdeck.config` is the public side."""
