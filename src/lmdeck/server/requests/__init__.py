"""Validation of requests into typed jobs, one module for each endpoint.

Requests that LM Studio refuses are refused.
"""
