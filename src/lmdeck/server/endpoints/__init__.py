"""LM Studio's endpoints: a back end's events as one body or as a stream of frames."""
