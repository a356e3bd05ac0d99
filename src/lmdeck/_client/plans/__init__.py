"""The operations of the clients as plans: generators of effects, shared by sync and async."""
