"""LM Studio's endpoints: they turn the back end's events into one body or a stream of frames."""
