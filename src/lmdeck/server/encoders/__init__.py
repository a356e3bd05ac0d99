"""Encoders of events on the wire, one module for each format.

They do no I/O; the server and the relay share them.
"""
