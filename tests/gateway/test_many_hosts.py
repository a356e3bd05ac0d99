"""Several hosts: failover, restarts, drain, reload, loading once, swapping, fair turns."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateways import MODEL, PATIENCE, Answer, config_of, gateway
from lmdeck.testing import FakeLMStudio
from loopback import CLOSE, DONE, RESET, SSE_HEAD, Loopback, Request, Step, chunk, completion, http_chunks, json_answer
from ports import free_port

FAST_PROBES = "[routing]\npoll = 0.2\nprobe = 0.1\n"


FAULTS = [
    "crash", "server_error", "overloaded", "reset_at_once", "close_at_once", "half_head", "rate_limit", "load_refused",
    "no_models_loaded", "channel_error", "bad_gateway", "model_not_found", "unauthorized",
]  # fmt: skip


def at_once(count: int, work: Callable[[int], Answer]) -> list[Answer]:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def content(answer: Answer) -> str:
    return str(answer.json["choices"][0]["message"]["content"])


def test_requests_are_spread_by_load(tmp_path: Path) -> None:
    """A request goes to the host that answers fewer; none is answered before all have arrived."""
    have_arrived = threading.Barrier(8)

    def hold(request: Request) -> list[bytes | float]:
        if request.method == "GET":
            entry = {"type": "llm", "key": MODEL, "loaded_instances": [{"id": MODEL, "config": {"parallel": 4}}]}
            return json_answer({"models": [entry]})
        have_arrived.wait(PATIENCE)
        return json_answer(completion("Hello."))

    with (
        Loopback(hold) as one,
        Loopback(hold) as other,
        gateway(tmp_path, config_of({"a": one.url, "b": other.url}, "[sticky]\nby = []")) as running,
    ):
        answers = at_once(8, lambda n: running.chat(str(n)))
        assert Counter(answer.headers["x-lmdeck-host"] for answer in answers) == {"a": 4, "b": 4}


def test_a_conversation_stays_on_its_host(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one, other])) as running,
    ):
        by_header = [running.chat(str(n), headers={"x-session-id": "s1"}).headers["x-lmdeck-host"] for n in range(6)]
        assert len(set(by_header)) == 1
        start = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        places = []
        for turn in range(5):
            more = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": f"Question {turn}"}] * turn
            places.append(running.chat(messages=start + more).headers["x-lmdeck-host"])
        assert len(set(places)) == 1


def test_one_of_two_hosts_dies(tmp_path: Path) -> None:
    """No request fails before its first byte; streams that had begun end with an error in their format."""
    is_dead, has_begun = threading.Event(), threading.Semaphore(0)
    entry = {"type": "llm", "key": MODEL, "loaded_instances": [{"id": MODEL, "config": {"parallel": 20}}]}

    def hold(request: Request) -> Iterator[bytes] | list[bytes | float]:
        """List one model; hold streams open until the other host is dead, and answer others at once."""
        if request.method == "GET":
            return json_answer({"models": [entry]})
        asked = request.json
        if not asked.get("stream"):
            return json_answer(completion(f"You said: {asked['messages'][-1]['content']}"))
        return stream()

    def stream() -> Iterator[bytes]:
        yield SSE_HEAD + http_chunks(chunk("Hel"), last=False)
        assert is_dead.wait(PATIENCE)
        yield http_chunks(chunk("lo."), chunk(finish="stop"), DONE)

    with (
        FakeLMStudio(strict=False, tokens_per_second=0.5) as one,
        Loopback(hold) as other,
        gateway(tmp_path, config_of({"a": one.base_url, "b": other.url}, FAST_PROBES + "[sticky]\nby = []")) as running,
        concurrent.futures.ThreadPoolExecutor(140) as pool,
    ):
        one.model(MODEL).parallel = 20
        one.evict()
        one.model(MODEL).add_instance()
        running.wait_until(lambda status: all(host["models"][MODEL]["parallel"] == 20 for host in status["hosts"]))

        def read(n: int) -> tuple[str, Answer]:
            body = {"model": MODEL, "messages": [{"role": "user", "content": f"stream {n}"}], "stream": True}
            answer = running.pool.request(
                "POST", f"{running.url}/v1/chat/completions", json=body, preload_content=False, timeout=PATIENCE
            )
            first = answer.read1(10)
            has_begun.release()
            return answer.headers["x-lmdeck-host"], Answer(answer.status, answer.headers, first + answer.read())

        streaming = [pool.submit(read, n) for n in range(40)]
        for _ in range(40):
            assert has_begun.acquire(timeout=PATIENCE)
        waiting = [pool.submit(running.chat, f"wait {n}") for n in range(100)]
        running.wait_until(lambda status: status["queues"][MODEL]["waiting"] == 100)
        one.close()
        is_dead.set()
        streams = [future.result() for future in streaming]
        answers = [future.result() for future in waiting]
        assert Counter(answer.status for answer in answers) == {200: 100}
        assert [content(answer) for answer in answers] == [f"You said: wait {n}" for n in range(100)]
        assert Counter(host for host, _ in streams) == {"a": 20, "b": 20}
        for host, answer in streams:
            if host == "a":
                assert "error" in answer.events[-1], answer.events[-1]
            else:
                assert answer.text == "Hello."
                assert any(choice["finish_reason"] == "stop" for event in answer.events for choice in event["choices"])


def test_a_host_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False, port=free_port()) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one, other], FAST_PROBES + "[sticky]\nby = []")) as running,
    ):
        one.close()
        for n in range(4):
            assert running.chat(str(n)).headers["x-lmdeck-host"] == "b"
        assert not running.host("a")["up"]
        one.start()
        running.wait_until(lambda status: status["hosts"][0]["up"])
        assert {running.chat(str(n)).headers["x-lmdeck-host"] for n in range(8)} == {"a", "b"}


def test_a_fault_before_the_first_byte_is_answered_by_another_host(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one, other], FAST_PROBES + "faults = 1000\n[sticky]\nby = []")) as running,
    ):
        for fault in FAULTS:
            for stream in (False, True):
                running.wait_until(lambda status: all(host["models"][MODEL]["loaded"] for host in status["hosts"]))
                one.fail(fault, **({"after_chunks": 0} if fault == "crash" else {}))
                answers = [running.chat(text, stream=stream) for text in "12"]
                for answer, text in zip(answers, "12", strict=True):
                    assert answer.status == 200, (fault, answer.body)
                    assert (answer.text if stream else content(answer)) == f"You said: {text}"
                assert "2" in {answer.headers["x-lmdeck-attempts"] for answer in answers}, fault
                one.reset()


MCP = {"type": "mcp", "server_label": "files", "server_url": "https://files.example/mcp"}
HI = [{"role": "user", "content": "Hi"}]
WITH_EFFECTS: dict[str, dict[str, object]] = {
    "/v1/responses": {"input": "Hi", "tools": [MCP]},
    "/v1/messages": {"messages": HI, "max_tokens": 9, "mcp_servers": [{"type": "url", "url": "https://files.example"}]},
    "/api/v1/chat": {"input": "Hi", "integrations": ["mcp/mail"]},
}
FAILURES: dict[str, list[Step]] = {
    "a failure": json_answer({"error": {"type": "internal_error", "message": "fetch failed"}}, 500),
    "a crash": json_answer({"error": "The model has crashed."}, 400),
    "a reset": [RESET],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE],
}


def test_a_request_for_which_a_host_runs_tools_is_sent_to_one_host(tmp_path: Path) -> None:
    """What failed may have run them; the same request without them goes to another host."""
    listing = json_answer({"models": [{"type": "llm", "key": MODEL, "loaded_instances": [{"id": MODEL}]}]})
    now = [FAILURES["a failure"]]
    routes: dict[str, Any] = {"/api/v1/models": listing, **dict.fromkeys(WITH_EFFECTS, lambda _: now[0])}
    with (
        Loopback(routes=routes) as one,
        Loopback(routes=routes) as other,
        gateway(tmp_path, config_of({"a": one.url, "b": other.url}, "[routing]\nfaults = 1000\n")) as running,
    ):

        def sent(path: str, body: Mapping[str, object]) -> int:
            before = [len(each.requests) for each in (one, other)]
            assert running.request("POST", path, {"model": MODEL, **body}).status >= 400
            after = [each.requests[start:] for each, start in zip((one, other), before, strict=True)]
            return sum(request.path == path for requests in after for request in requests)

        for name, failure in FAILURES.items():
            now[0] = failure
            for path, body in WITH_EFFECTS.items():
                for stream in (False, True):
                    assert sent(path, {**body, "stream": stream}) == 1, (name, path)
            assert sent("/v1/responses", {"input": "Hi"}) > 1, name


def test_no_available_host_is_an_error_with_retry_after(tmp_path: Path) -> None:
    with gateway(tmp_path, config_of({"gone": "http://127.0.0.1:9"})) as running:
        answer = running.chat()
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_host_available")
        assert float(answer.headers["retry-after"]) > 0
        assert "gone is down" in answer.json["error"]["message"]
        assert running.get("/ready").status == 503
        assert running.get("/health").status == 200


def test_a_drained_host_gets_no_new_requests_and_finishes_its_own(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False, tokens_per_second=20) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one])) as running,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        early = pool.submit(running.chat, "word " * 30, stream=True)
        running.wait_until(lambda status: status["hosts"][0]["running"] == 1)
        running.reload(config_of([one, other]).replace('name = "a"', 'name = "a"\ndrain = true'))
        running.wait_until(lambda status: len(status["hosts"]) == 2 and status["hosts"][1]["up"])
        assert {running.chat(str(n)).headers["x-lmdeck-host"] for n in range(6)} == {"b"}
        running.reload(config_of({"b": other.base_url}))  # and now it is gone, with its stream still running
        running.wait_until(lambda status: len(status["hosts"]) == 1)
        assert early.result().text == "You said: " + "word " * 30
        assert early.result().events[-1]["choices"][0]["finish_reason"] == "stop"


def test_hosts_are_added_and_removed_without_losing_a_request(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one])) as running,
    ):
        is_over = threading.Event()

        def ask() -> list[int]:
            statuses = []
            while not is_over.is_set():
                statuses.append(running.chat().status)
            return statuses

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            for n in range(12):
                text = config_of([one, other] if n % 2 else {"a": one.base_url} if n % 4 else {"b": other.base_url})
                done = running.request("PUT", "/gateway/config", text.encode())
                assert done.status == 200, done.body
                time.sleep(0.05)
            is_over.set()
            statuses = Counter(status for future in asking for status in future.result())
        assert set(statuses) == {200}
        wrong = running.request("PUT", "/gateway/config", b'[[hosts]]\nurl = "http://x"\nwieght = 2')
        assert wrong.status == 400
        assert "line 3: hosts[0].wieght" in wrong.json["error"]["message"]
        assert "weight" in wrong.json["error"]["message"]
        before = running.get("/gateway/config").json
        for text in (
            "",
            "# nothing\n",
            "{}",
            '[[hosts]]\nurl = "ftp://x"',
            '[[hosts]]\nurl = "http://x"\nname = "a\\nb"',
        ):
            assert running.request("PUT", "/gateway/config", text.encode()).status == 400, text
            running.config.write_text(text)
            running.process.send_signal(signal.SIGHUP)
        assert running.chat().status == 200
        assert running.get("/gateway/config").json == before
        default = b'hosts = [{ url = "http://localhost:1234", name = "local" }]'  # the default, but written down
        assert running.request("PUT", "/gateway/config", default).status == 200


@pytest.mark.parametrize("profile", ["", f'[profiles."{MODEL}"]\ncontext_length = 16384\n'])
def test_a_model_is_loaded_once(tmp_path: Path, profile: str) -> None:
    """It is loaded once for any number of simultaneous requests, with its profile if it has one."""
    with FakeLMStudio(strict=False) as one, FakeLMStudio(strict=False) as other:
        for fake in (one, other):
            fake.evict()
            fake.model(MODEL).load_seconds = 0.3
        with gateway(tmp_path, config_of([one, other], profile)) as running:
            answers = at_once(16, lambda n: running.chat(str(n)))
            assert Counter(answer.status for answer in answers) == {200: 16}
            assert one.model(MODEL).loads + other.model(MODEL).loads == 1
            loaded = one if one.model(MODEL).loads else other
            assert len(loaded.model(MODEL).instances) == 1
            assert loaded.model(MODEL).instances[0].context_length == (16384 if profile else 4096)


def test_a_host_without_loading_on_demand_is_told_to_load(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False) as fake, gateway(tmp_path, config_of([fake])) as running:
        fake.turn_off_jit()
        fake.evict()
        running.wait_until(lambda status: True)
        answers = at_once(6, lambda n: running.chat(str(n)))
        assert Counter(answer.status for answer in answers) == {200: 6}
        assert fake.model(MODEL).loads == 1


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False) as fake:
        fake.add_model("huge", loaded=False, refuses_to_load="insufficient memory")
        with gateway(tmp_path, config_of([fake], "[profiles.huge]\ncontext_length = 4096\n")) as running:
            answer = running.chat(model="huge")
            assert answer.json["error"]["code"] == "model_load_failed"
            assert "insufficient memory" in answer.json["error"]["message"]
            assert running.chat().status == 200


def test_a_host_with_memory_for_one_model_rarely_switches(tmp_path: Path) -> None:
    """Requests for the loaded model go first; the others have their turn after `collate` seconds, whoever asks on."""
    with FakeLMStudio(strict=False, time_to_first_token=0.02) as fake:
        for name in ("first", "second"):
            fake.add_model(name, loaded=name == "first")
        fake.evict()
        fake.evict("text-embedding-nomic-embed-text-v1.5")
        one_model = config_of([fake]).replace('name = "a"', 'name = "a"\nmax_models = 1')
        with gateway(tmp_path, one_model + "[queue]\ncollate = 60\n") as running:
            answers = at_once(40, lambda n: running.chat(str(n), model=("first", "second")[n % 2]))
            assert Counter(answer.status for answer in answers) == {200: 40}
            assert fake.model("first").loads + fake.model("second").loads <= 10  # and not for every other request
            assert len([1 for name in ("first", "second") if fake.model(name).instances]) == 1
            running.reload(one_model + "[queue]\ncollate = 0.2\n")
            running.wait_until(lambda _: running.get("/gateway/config").json["queue"]["collate"] == 0.2)
            is_over = threading.Event()

            def flood(_: int) -> Answer:
                while True:
                    answer = running.chat("more", model="first")
                    if is_over.is_set() or answer.status != 200:
                        return answer

            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                flooding = [pool.submit(flood, n) for n in range(6)]
                assert running.chat("my turn", model="second").status == 200
                is_over.set()
                assert [future.result().status for future in flooding] == [200] * 6
            assert len([1 for name in ("first", "second") if fake.model(name).instances]) == 1


def test_a_full_queue_is_an_error_with_retry_after(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False, time_to_first_token=0.5) as fake:
        text = config_of([fake], "[queue]\nmax_waiting = 2\n").replace('name = "a"', 'name = "a"\nparallel = 1')
        with gateway(tmp_path, text) as running:
            answers = at_once(6, lambda n: running.chat(str(n)))
            refused = [answer for answer in answers if answer.status == 503]
            assert Counter(answer.status for answer in answers) == {200: 3, 503: 3}
            for answer in refused:
                assert answer.json["error"]["code"] == "queue_full"
                assert "queue.max_waiting" in answer.json["error"]["message"]
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.headers["x-should-retry"] == "true"


def test_a_wait_has_a_limit_and_a_stream_has_heartbeats_while_it_waits(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False) as fake:
        fake.when(lambda request: "slow" in request.last_user).reply("done", time_to_first_token=3.0)
        text = config_of([fake], "[queue]\nmax_wait = 1.0\nheartbeat = 0.2\n").replace(
            'name = "a"', 'name = "a"\nparallel = 1'
        )
        with gateway(tmp_path, text) as running, concurrent.futures.ThreadPoolExecutor(3) as pool:
            slow = pool.submit(running.chat, "slow", stream=True)
            running.wait_until(lambda status: status["hosts"][0]["running"] == 1)
            whole, stream = pool.submit(running.chat, "1"), pool.submit(running.chat, "2", stream=True)
            assert (whole.result().status, whole.result().json["error"]["code"]) == (503, "queue_timeout")
            assert "queue.max_wait" in whole.result().json["error"]["message"]
            assert stream.result().status == 200  # a heartbeat came first
            assert stream.result().body.startswith(b": \n\n") or stream.result().body.startswith(b":")
            assert stream.result().events[-1]["error"]["code"] == "queue_timeout"
            assert slow.result().body.count(b":\n\n") + slow.result().body.count(b": \n\n") >= 3
            assert slow.result().text == "done"


def test_a_disconnected_client_leaves_the_queue_and_stops_the_model(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False, tokens_per_second=5) as fake:
        text = config_of([fake]).replace('name = "a"', 'name = "a"\nparallel = 1')
        with gateway(tmp_path, text) as running:
            body = b'{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "%s"}]}' % (
                MODEL.encode(),
                b"word " * 500,
            )
            head = (
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n"
            )
            clients = [running.connect() for _ in range(3)]
            for client in clients:
                client.sendall(head % len(body) + body)
            running.wait_until(lambda status: status["queues"].get(MODEL, {}).get("waiting") == 2)
            clients[2].close()
            running.wait_until(lambda status: status["queues"][MODEL]["waiting"] == 1)
            clients[0].close()
            clients[1].close()
            running.wait_until(lambda status: status["hosts"][0]["running"] == 0)
            limit = time.monotonic() + PATIENCE
            while fake.in_progress:
                assert time.monotonic() < limit
                time.sleep(0.02)


def test_the_status_shows_positions_in_the_queue(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False, time_to_first_token=0.7) as fake:
        text = config_of([fake]).replace('name = "a"', 'name = "a"\nparallel = 1')
        with gateway(tmp_path, text) as running, concurrent.futures.ThreadPoolExecutor(4) as pool:
            running.chat("measured")
            asking = [pool.submit(running.chat, str(n)) for n in range(4)]
            running.wait_until(lambda status: status["queues"][MODEL]["waiting"] == 3)
            places = running.status()["queues"][MODEL]["requests"]
            assert [place["position"] for place in places] == list(range(len(places)))
            waits = [place["expected_wait"] for place in places]
            assert waits == sorted(waits)
            assert waits[0] > 0
            assert all(future.result().status == 200 for future in asking)


def test_models_are_loaded_and_unloaded_on_the_chosen_host(tmp_path: Path) -> None:
    with (
        FakeLMStudio(strict=False) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one, other])) as running,
    ):
        other.add_model("only-here", loaded=False)
        running.wait_until(lambda status: "only-here" in status["hosts"][1]["models"])
        loaded = running.request("POST", "/api/v1/models/load", {"model": "only-here", "context_length": 2048})
        assert (loaded.status, loaded.headers["x-lmdeck-host"]) == (200, "b")
        assert other.model("only-here").instances[0].context_length == 2048
        assert running.host("b")["models"]["only-here"]["loaded"]
        gone = running.request("POST", "/api/v1/models/unload", {"instance_id": "only-here"})
        assert (gone.status, gone.headers["x-lmdeck-host"]) == (200, "b")
        assert not other.model("only-here").instances
        chosen = running.request("POST", "/api/v1/models/load", {"model": MODEL}, **{"x-lmdeck-host": "b"})
        assert chosen.headers["x-lmdeck-host"] == "b"
        assert running.request("POST", "/api/v1/models/load", {"model": "nowhere"}).status == 404
        assert running.request("POST", "/api/v1/models/load", {"model": MODEL}, **{"x-lmdeck-host": "c"}).status == 404
        assert running.get(f"/v1/models/{MODEL}").json["id"] == MODEL
        assert running.get("/v1/models/nowhere").status == 404
        job = other.plan_download("new/model")
        started = running.request("POST", "/api/v1/models/download", {"model": "new/model"}, **{"x-lmdeck-host": "b"})
        assert started.json["job_id"] == job
        assert running.get(f"/api/v1/models/download/status/{job}").headers["x-lmdeck-host"] == "b"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_response_is_continued_where_it_is_stored(tmp_path: Path, stream: bool) -> None:
    with (
        FakeLMStudio(strict=False) as one,
        FakeLMStudio(strict=False) as other,
        gateway(tmp_path, config_of([one, other], "[sticky]\nby = []")) as running,
    ):
        hosts, previous = [], None
        for n in range(6):
            body = {"model": MODEL, "input": f"Question {n}", "previous_response_id": previous, "stream": stream}
            answer = running.request("POST", "/v1/responses", body)
            assert answer.status == 200, answer.body
            previous = answer.events[-1]["response"]["id"] if stream else answer.json["id"]
            hosts.append(answer.headers["x-lmdeck-host"])
            running.request("POST", "/v1/responses", {"model": MODEL, "input": "another conversation"})
        assert len(set(hosts)) == 1


def test_several_processes_load_a_model_once(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False) as fake:
        early = 0

        def note(request: object) -> None:
            nonlocal early
            early += getattr(request, "path", "") == "/v1/chat/completions" and not fake.model(MODEL).instances

        fake.on_request(note)
        fake.evict()
        fake.model(MODEL).load_seconds = 0.5
        with gateway(tmp_path, config_of([fake]), "--workers", "2") as running:
            answers = at_once(12, lambda n: running.chat(str(n), headers={"Connection": "close"}))
            assert Counter(answer.status for answer in answers) == {200: 12}
            assert (fake.model(MODEL).loads, early) == (1, 1)


def test_a_host_that_restarts_in_the_middle_answers_again(tmp_path: Path) -> None:
    """The fake's own locks belong to its event loop, which is another one after a restart."""
    with (
        FakeLMStudio(strict=False, port=free_port(), tokens_per_second=5) as fake,
        gateway(tmp_path, config_of([fake], FAST_PROBES)) as running,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        asking = [pool.submit(running.chat, "word " * 50, stream=True) for _ in range(6)]
        running.wait_until(lambda status: status["hosts"][0]["running"] == 4)
        fake.close()
        ended = [future.result() for future in asking]
        assert all(answer.status >= 500 or "error" in answer.events[-1] for answer in ended)
        fake.start()
        running.wait_until(lambda status: status["hosts"][0]["up"])
        assert running.chat().status == 200
