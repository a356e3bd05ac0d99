"""Validation of requests into typed jobs, one module for each endpoint; refuses what LM Studio refuses."""
