"""Stream decoding without I/O: bytes in, chunks and the reply out."""
