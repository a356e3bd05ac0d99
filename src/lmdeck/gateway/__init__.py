"""The gateway: one repaired address in front of several LM Studio machines, with keys, limits and usage."""
