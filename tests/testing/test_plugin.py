"""The pytest plugin, in a pytest of its own; and the mixin for `unittest`."""

from __future__ import annotations

import os
import unittest

import pytest

import lmdeck
from lmdeck.testing import FakeLMStudioMixin

pytest_plugins = ["pytester"]


def test_the_fixtures_point_everything_to_the_fake(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import os
        import lmdeck
        import pytest

        def application(question):
            return lmdeck.chat().user(question).send().content

        def test_it(fake_lmstudio):
            fake_lmstudio.reply("Paris")
            assert application("Capital of France?") == "Paris"
            fake_lmstudio.assert_sent(contains="France")
            assert os.environ["OPENAI_BASE_URL"] == fake_lmstudio.base_url + "/v1"

        @pytest.mark.lmstudio(strict=False, api_token="t")
        def test_settings(fake_lmstudio):
            assert fake_lmstudio.client().chat().user("Hi").send().content == "You said: Hi"

        def test_async(async_fake_lmstudio):
            import asyncio
            async_fake_lmstudio.reply("Hello")
            async def main():
                async with async_fake_lmstudio.async_client() as alm:
                    return (await alm.chat().user("Hi").send()).content
            assert asyncio.run(main()) == "Hello"
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_what_was_not_scripted_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import lmdeck

        def test_it(fake_lmstudio):
            try:
                lmdeck.chat().user("Surprise").send()
            except lmdeck.LMStudioError:
                pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*had no scripted answer*Surprise*"])


def test_a_real_lm_studio_and_the_network_are_out_of_reach(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import asyncio
        import socket
        import lmdeck
        import pytest
        from lmdeck import LMStudio, LMStudioError

        @pytest.mark.parametrize("address", [("127.0.0.1", 1234), ("192.0.2.1", 80)])
        def test_refused(fake_lmstudio, address):
            with pytest.raises(ConnectionRefusedError, match="tried to reach"):
                socket.create_connection(address, timeout=1)
            with pytest.raises(LMStudioError):
                LMStudio(host=address[0], port=address[1], retry_attempts=1).models.list()

        def test_own_servers_stay_reachable(fake_lmstudio):
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), timeout=1).close()

        def test_after_it_all_is_as_before():
            assert socket.socket.connect.__qualname__ != "block_other_connections.<locals>.guarded"
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


class Application(FakeLMStudioMixin, unittest.TestCase):
    """The mixin at work; pytest runs it as it is."""

    fake_settings = {"strict": False}  # noqa: RUF012

    def test_it(self) -> None:
        self.fake.reply("Paris")
        assert lmdeck.chat().user("Capital?").send().content == "Paris"
        assert os.environ["LMDECK_BASE_URL"] == self.fake.base_url
        self.fake.assert_call_count(1)

    def test_each_test_has_its_own(self) -> None:
        self.fake.assert_nothing_sent()
