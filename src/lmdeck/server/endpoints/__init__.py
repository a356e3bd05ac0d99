"""LM Studio's endpoints: the back end's events in, one body or a stream of frames out."""
