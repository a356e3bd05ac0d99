"""What the clients do, as plans: generators of effects, written once for sync and async."""
