"""`lmdeck doctor`: the command, its report, and its checks of the server and of a model."""
