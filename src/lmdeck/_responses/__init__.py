"""Responses other than chats, without I/O.

These are errors, model lists, embeddings, and the detection of the product.
"""
