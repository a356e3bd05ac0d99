"""Request bodies for LM Studio's endpoints. Nothing here does network I/O."""
