"""LM Studio's protocol: how requests are built, what answers mean, when to try again. No I/O."""
