"""Encoders of events on the wire, one module for each format; without I/O, shared by the server and the relay."""
