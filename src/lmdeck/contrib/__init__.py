"""Integrations: web frameworks and transports for other clients, imported only on demand."""
