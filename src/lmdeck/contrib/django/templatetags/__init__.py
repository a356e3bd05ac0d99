"""`{% load lmdeck %}`."""
