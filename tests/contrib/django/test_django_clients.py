"""`lm` and `alm` in threads, forks and loops; tools and signals of the project."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from django.test import SimpleTestCase, TransactionTestCase
from far_end import SLOW, project

import lmdeck
from lmdeck import AsyncLMStudio, LMStudio
from lmdeck.contrib.django import alm, lm, signals
from lmdeck.contrib.django.testing import override_lmdeck
from lmdeck.contrib.django.tools import registry
from lmdeck.events import EVENTS
from loopback import Loopback, hello


class Clients(SimpleTestCase):
    def test_both_answer(self) -> None:
        async def ask() -> str:
            return (await alm.chat().user("Hi").send()).content

        with project():
            assert lm.chat().user("Hi").send().content == "Hello."
            assert asyncio.run(ask()) == "Hello."
            lm.close()

    def test_all_threads_have_one_client(self) -> None:
        seen: list[object] = []
        threads = [threading.Thread(target=lambda: seen.append(lm.settings)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(one) for one in seen}) == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_process_opens_connections_of_its_own(self) -> None:
        with Loopback(hello) as server, override_lmdeck(BASE_URL=server.url):
            lm.chat().user("Hi").send()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = 0 if lm.chat().user("Hi").send().content == "Hello." else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            assert lm.chat().user("Hi").send().content == "Hello."
            assert [request.connection for request in server.requests] == [0, 1, 0]
            lm.close()

    def test_each_loop_has_a_client(self) -> None:
        async def settings_here() -> object:
            return alm.settings

        async def same() -> bool:
            return alm.settings is alm.settings

        assert asyncio.run(settings_here()) is not asyncio.run(settings_here())
        assert asyncio.run(same())

    def test_a_chat_may_be_built_outside_a_loop(self) -> None:
        async def ask() -> str:
            return (await chat.send()).content

        with project():
            chat = alm.chat().user("Hi")
            assert asyncio.run(ask()) == "Hello."


class Tools(TransactionTestCase):
    def test_each_applications_tools_are_found(self) -> None:
        assert {"get_weather", "count_users"} <= {tool.name for tool in registry}
        assert "get_weather" in lm.tools
        assert lm.tools is alm.tools

    def test_a_run_uses_them_and_leaves_no_connection_open(self) -> None:
        from django.db import connections

        closed: list[str] = []
        with project() as fake:
            fake.when(lambda _: True).tool_call("count_users").reply("None.")
            connection_class = type(connections["default"])
            close = connection_class.close

            def note(self: Any) -> None:
                closed.append(threading.current_thread().name)
                close(self)

            connection_class.close = note
            try:
                with lm.chat().user("How many?").with_tools(["count_users"]).run_stream() as run:
                    for _ in run:
                        continue
            finally:
                connection_class.close = close
            assert run.reply.rounds[0].results[0].value == 0
            assert closed == ["lmdeck-tool-count_users"]
            lm.close()


class Signals(SimpleTestCase):
    def test_there_is_one_for_every_event(self) -> None:
        assert set(signals.SIGNALS) == set(EVENTS)

    def test_a_sync_clients_events_are_sent(self) -> None:
        seen: list[tuple[Any, str]] = []
        threads: list[str] = []

        def note(sender: Any, event: Any, **_: Any) -> None:
            seen.append((sender, type(event).__name__))

        async def note_async(sender: Any, event: Any, **_: Any) -> None:
            threads.append(event.text)

        def fail(**_: Any) -> None:
            raise RuntimeError("on purpose")

        for signal in (signals.request_started, signals.request_finished, signals.content_received):
            signal.connect(note)
        signals.content_received.connect(note_async)
        signals.request_started.connect(fail)
        try:
            with project(), self.assertLogs("django.dispatch", "ERROR"):
                assert lm.chat().user("slow").stream().until_done().content == SLOW
                lm.close()
        finally:
            for signal in signals.SIGNALS.values():
                for receiver in (note, note_async, fail):
                    signal.disconnect(receiver)
        names = [name for _, name in seen]
        assert names == ["RequestStarted", *["ContentReceived"] * len(threads), "RequestFinished"]
        assert {sender for sender, _ in seen} == {LMStudio}
        assert "".join(threads) == SLOW

    def test_an_async_clients_events_reach_sync_and_async_receivers(self) -> None:
        seen: list[Any] = []
        told, heard = asyncio.Event(), threading.Event()

        def note(sender: Any, event: lmdeck.RequestFinished, **_: Any) -> None:
            seen.append((sender, event.status))
            heard.set()

        async def note_async(sender: Any, event: lmdeck.RequestFinished, **_: Any) -> None:
            seen.append((sender, event.status))
            told.set()

        async def ask() -> None:
            await alm.chat().user("Hi").send()
            await told.wait()
            await asyncio.to_thread(heard.wait, 5)

        signals.request_finished.connect(note)
        signals.request_finished.connect(note_async)
        try:
            with project():
                asyncio.run(asyncio.wait_for(ask(), 5))
        finally:
            signals.request_finished.disconnect(note)
            signals.request_finished.disconnect(note_async)
        assert seen == [(AsyncLMStudio, 200)] * 2
