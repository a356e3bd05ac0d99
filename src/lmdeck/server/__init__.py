"""A server of LM Studio's HTTP API, in front of interchangeable back ends."""
