"""Integrations: web frameworks and transports for other clients, each imported only on demand."""
