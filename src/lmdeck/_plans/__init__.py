"""The operations of the clients as plans: generators of effects, shared by sync and async.

A `Session` is the state that the plans of one client share.
"""
