"""How events are written on the wire, one module a format; without I/O, for the server and the relay alike."""
