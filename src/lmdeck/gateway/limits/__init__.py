"""The limits of keys: requests per minute, tokens per minute and day, simultaneous requests."""
