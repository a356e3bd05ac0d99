"""The stream's brain: bytes in, chunks out, no I/O and no clock."""
