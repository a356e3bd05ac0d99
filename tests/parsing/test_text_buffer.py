"""Text from pieces: nothing is lost where pieces are joined, and small pieces are not all kept."""

import tracemalloc

import pytest

from lmdeck._parsing.text_buffer import JOINED_AT, TextBuffer


@pytest.mark.parametrize("count", [0, 1, JOINED_AT - 1, JOINED_AT, JOINED_AT + 1, 3 * JOINED_AT + 7])
def test_the_text_is_all_pieces_in_order(count: int) -> None:
    pieces = [f" {number}" for number in range(count)]
    text = TextBuffer()
    for piece in pieces:
        text.write(piece)
    assert text.getvalue() == "".join(pieces)
    text.write("!")
    assert text.getvalue() == "".join(pieces) + "!"


def test_memory_follows_the_text_and_not_the_number_of_pieces() -> None:
    text = TextBuffer()
    tracemalloc.start()
    try:
        for number in range(50_000):
            text.write(f"{number:05}")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * 5 * 50_000
