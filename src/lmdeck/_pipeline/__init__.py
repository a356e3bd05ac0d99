"""What stands between a client and its transport: small handlers, each around the next, around one exchange."""
