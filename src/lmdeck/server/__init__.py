"""LM Studio's HTTP API, answered by this library: one wire, several back ends."""
