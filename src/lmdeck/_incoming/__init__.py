"""Requests to one of our servers: their origin, their body, and clients that leave."""
