"""lmdeck in web frameworks, one package each; none is imported unless it is asked for."""
