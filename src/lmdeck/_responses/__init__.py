"""Responses other than chats: errors, model lists, embeddings, and the detection of the product. No I/O."""
