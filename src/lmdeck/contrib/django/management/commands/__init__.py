"""`manage.py lmdeck`."""
