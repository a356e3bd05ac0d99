"""Encoders: the events of an answer in each wire format, one module for each format.

They do no I/O; the server and the relay share them.
"""
