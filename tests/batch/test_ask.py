"""`lmdeck.contrib.ray.Ask` as a callable: without Ray, as Dask and Spark call it."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from batch_tools import answering_fake, asked

from lmdeck import AuthenticationError, ConfigurationError, ServerUnreachableError
from lmdeck.contrib.ray import Ask
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.fake_models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL


def test_rows_in_rows_out() -> None:
    """Rows come back in order with their own columns; equal rows are sent once, and an instance may be called again."""
    with answering_fake() as fake:
        ask = Ask(DEFAULT_MODEL, base_url=fake.base_url)
        table = pa.table({"prompt": ["a", "b", "a"], "n": [1, 2, 3]})
        rows = ask(table).to_pylist()
        assert [(row["n"], row["content"]) for row in rows] == [
            (1, "answer to a"),
            (2, "answer to b"),
            (3, "answer to a"),
        ]
        assert all(row["error"] is None and row["tool_calls"] == [] for row in rows)
        assert all(row["usage"]["completion_tokens"] > 0 for row in rows)
        assert asked(fake) == {"a": 1, "b": 1}
        assert ask({"prompt": ["c"]}).to_pylist()[0]["content"] == "answer to c"
        assert ask(table.slice(0, 0)).num_rows == 0
        ask.close()
        assert ask({"prompt": ["d"]}).to_pylist()[0]["content"] == "answer to d"
        ask.close()


def test_pandas_in_pandas_out() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed; `nox -s ray` has it")
    with answering_fake() as fake:
        ask = Ask(DEFAULT_MODEL, base_url=fake.base_url, template="{word}!", prefix="answer_")
        frame = ask(pandas.DataFrame({"word": ["a"], "content": ["mine"]}))
        assert frame["answer_content"].tolist() == ["answer to a!"]
        assert frame["content"].tolist() == ["mine"]
        ask.close()


def test_tool_calls_and_messages() -> None:
    with FakeLMStudio(cuts=False) as fake:
        fake.tool_call("get_weather", city="Paris")
        tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
        ask = Ask(DEFAULT_MODEL, base_url=fake.base_url, options={"tools": [tool]})
        rows = ask(pa.table({"messages": [[{"role": "user", "content": "Weather?"}]]})).to_pylist()
        assert rows[0]["tool_calls"][0]["name"] == "get_weather"
        assert json.loads(rows[0]["tool_calls"][0]["arguments"]) == {"city": "Paris"}
        ask.close()


def test_embeddings() -> None:
    with FakeLMStudio() as fake:
        fake.embeds("a", [1.0, 0.5])
        ask = Ask(DEFAULT_EMBEDDING_MODEL, endpoint="/v1/embeddings", base_url=fake.base_url)
        rows = ask({"input": ["a"]}).to_pylist()
        assert rows[0]["embedding"] == [1.0, 0.5]
        ask.close()


def test_a_row_that_fails_has_an_error() -> None:
    """The others are answered; the columns have the same types in every batch."""
    with answering_fake() as fake:
        fake.when(lambda r: r.last_user == "bad").error(400, "Invalid request: no such thing")
        fake._script.rules.reverse()
        ask = Ask(DEFAULT_MODEL, base_url=fake.base_url, retry_attempts=1)
        table = ask(pa.table({"prompt": ["good", "bad", None]}))
        assert table.schema == ask({"prompt": ["good"]}).schema
        good, bad, empty = table.to_pylist()
        assert good["content"] == "answer to good"
        assert (bad["content"], bad["usage"]) == (None, None)
        assert "no such thing" in bad["error"]["message"]
        assert empty["error"]["code"] == "invalid_row"
        ask.close()


def test_errors_that_stop_the_rows_are_raised() -> None:
    """A refused token, and a server that does not answer for `patience` seconds."""
    with FakeLMStudio(api_token="right") as fake:
        ask = Ask(DEFAULT_MODEL, base_url=fake.base_url, api_token="wrong", retry_attempts=1)
        with pytest.raises(AuthenticationError):
            ask({"prompt": ["a"]})
    ask.close()
    away = Ask(DEFAULT_MODEL, base_url="http://127.0.0.1:1", retry_attempts=1, patience=0.1)
    with pytest.raises(ServerUnreachableError):
        away({"prompt": ["a"]})
    away.close()


@pytest.mark.parametrize("column", ["content", "error"])
def test_a_column_is_not_replaced(column: str) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        Ask(DEFAULT_MODEL)({"prompt": ["a"], column: ["mine"]})


@pytest.mark.parametrize("arguments", [{"endpoint": "/v1/models"}, {"bse_url": "x"}, {"timeout": -1}])
def test_wrong_arguments_are_errors_at_once(arguments: Any) -> None:
    with pytest.raises(ConfigurationError):
        Ask(DEFAULT_MODEL, **arguments)
