"""The limits of keys: requests per minute, tokens per minute and day, and requests at once."""
