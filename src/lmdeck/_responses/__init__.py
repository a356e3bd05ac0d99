"""What the server sends besides chats: errors, model lists, embeddings, and which product it is. No I/O."""
