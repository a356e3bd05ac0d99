"""Settings: where each is found, which values are refused, and what is never shown."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck import AsyncLMStudio, LMStudio
from lmdeck._secret import Secret, redact_url
from lmdeck._settings.sources import CONFIG_FILE_BYTES
from lmdeck.config import ClientSettings, Settings
from lmdeck.errors import ConfigurationError
from loopback import Loopback, hello

TOKEN = "sk-lm-S3cr3t"


def resolve(folder: Path, given: dict[str, Any] | None = None, **environ: str) -> Settings:
    """Find the settings in these places alone."""
    return Settings.resolve(given, environ=environ, folder=folder)


def refused(folder: Path, given: dict[str, Any] | None = None, **environ: str) -> str:
    """Return the text of the refusal."""
    with pytest.raises(ConfigurationError) as caught:
        resolve(folder, given, **environ)
    return str(caught.value)


def test_the_defaults_are_the_agreed_ones(tmp_path: Path) -> None:
    """A client that is told nothing."""
    assert resolve(tmp_path) == Settings(
        host="localhost",
        port=1234,
        base_url=None,
        model=None,
        api_token=None,
        timeout=60.0,
        first_token_timeout=600.0,
        connect_timeout=5.0,
        retry_attempts=3,
        retry_delay=0.1,
        debug=False,
    )


def test_every_setting_is_a_keyword() -> None:
    """The typed keywords of a client are the settings, each may be None."""
    assert tuple(ClientSettings.__annotations__) == Settings.__struct_fields__
    assert all("None" in str(hint) for hint in ClientSettings.__annotations__.values())


def test_each_place_is_asked_in_turn(tmp_path: Path) -> None:
    """Keyword, environment, `lmdeck.toml` and default are searched in this order, for one setting at a time."""
    (tmp_path / "lmdeck.toml").write_text('model = "file"\ntimeout = 3\nretry_delay = 4\n')
    settings = resolve(tmp_path, {"model": "keyword"}, LMDECK_MODEL="environment", LMDECK_TIMEOUT="2")
    assert (settings.model, settings.timeout, settings.retry_delay, settings.port) == ("keyword", 2.0, 4.0, 1234)


def test_a_project_file_has_its_own_table(tmp_path: Path) -> None:
    """`[tool.lmdeck]` of `pyproject.toml` is read where there is no `lmdeck.toml`."""
    (tmp_path / "pyproject.toml").write_text("[tool.lmdeck]\nport = 5\n[tool.other]\nport = 6\n")
    assert resolve(tmp_path).port == 5
    (tmp_path / "lmdeck.toml").write_text("port = 7\n")
    assert resolve(tmp_path).port == 7


@pytest.mark.parametrize("text", ["", "[tool]\n", "tool = 5\n", "[project]\nname = 'x'\n"])
def test_a_project_without_the_table_says_nothing(tmp_path: Path, text: str) -> None:
    """Other people's project files are no fault."""
    (tmp_path / "pyproject.toml").write_text(text)
    assert resolve(tmp_path) == Settings()


@pytest.mark.parametrize("value", [None, ""])
def test_none_and_an_empty_variable_mean_look_further(tmp_path: Path, value: str | None) -> None:
    """A wrapper may pass its own defaults through."""
    (tmp_path / "lmdeck.toml").write_text("port = 7\n")
    given = dict.fromkeys(Settings.__struct_fields__)
    assert resolve(tmp_path, given, **({} if value is None else {"LMDECK_PORT": value})).port == 7


def test_the_working_directory_and_the_process_environment_are_the_default_places(tmp_path: Path, monkeypatch) -> None:
    """Without arguments the real places are read, at the call and not before."""
    (tmp_path / "lmdeck.toml").write_text("port = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMDECK_MODEL", "m")
    assert (Settings.resolve().port, Settings.resolve().model) == (7, "m")


def test_a_working_directory_that_is_gone_is_no_fault(tmp_path: Path, monkeypatch) -> None:
    """A daemon may outlive the folder that it was started in."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Settings.resolve({"port": 5}, environ={}).port == 5


@pytest.mark.parametrize(
    ("given", "environ", "file", "found"),
    [
        ({"host": "k"}, {"LMDECK_BASE_URL": "http://e"}, "", ("k", 1234, None)),
        ({"port": 5}, {"LMDECK_BASE_URL": "http://e"}, "", ("localhost", 5, None)),
        ({"base_url": "http://k"}, {"LMDECK_HOST": "e", "LMDECK_PORT": "6"}, "", ("localhost", 1234, "http://k")),
        ({"host": "k"}, {"LMDECK_PORT": "6"}, "", ("k", 6, None)),
        ({"port": 5}, {"LMDECK_HOST": "e"}, "", ("e", 5, None)),
        ({}, {"LMDECK_HOST": "e"}, 'base_url = "http://f"', ("e", 1234, None)),
        ({}, {"LMDECK_BASE_URL": "http://e"}, 'host = "f"\nport = 7', ("localhost", 1234, "http://e")),
        ({"timeout": 5}, {}, 'base_url = "http://f"', ("localhost", 1234, "http://f")),
        ({"host": "k"}, {"LMDECK_BASE_URL": "http://e"}, "port = 7", ("k", 1234, None)),
    ],
)
def test_an_address_named_nearer_is_not_overruled_from_afar(
    tmp_path: Path, given: dict[str, Any], environ: dict[str, str], file: str, found: tuple
) -> None:
    """Host and port, and the base URL, are two names of one thing."""
    (tmp_path / "lmdeck.toml").write_text(file)
    settings = resolve(tmp_path, given, **environ)
    assert (settings.host, settings.port, settings.base_url) == found


def test_the_token_has_two_names(tmp_path: Path) -> None:
    """LM Studio's own variable is read, and lmdeck's own comes first."""
    assert resolve(tmp_path, LM_API_TOKEN="a").api_token == Secret("a")
    assert resolve(tmp_path, LMDECK_API_TOKEN="b").api_token == Secret("b")
    assert resolve(tmp_path, LM_API_TOKEN="a", LMDECK_API_TOKEN="b").api_token == Secret("b")
    assert resolve(tmp_path, {"api_token": Secret("c")}, LM_API_TOKEN="a").api_token == Secret("c")


GOOD: list[tuple[str, object, object]] = [
    ("port", "8080", 8080),
    ("port", 8080.0, 8080),
    ("port", 65535, 65535),
    ("host", "::1", "::1"),
    ("host", "[::1]", "[::1]"),
    ("host", " gpu-box ", "gpu-box"),
    ("base_url", "HTTPS://host/v1", "HTTPS://host/v1"),
    ("base_url", "host:1234", "host:1234"),
    ("timeout", "2.5", 2.5),
    ("timeout", 1, 1.0),
    ("total_timeout", 1e9, 1e9),
    ("retry_delay", 0, 0.0),
    ("retry_attempts", "1", 1),
    ("debug", "Yes", True),
    ("debug", "off", False),
    ("tls_verify", False, False),
    ("tls_ca_file", Path("ca.pem"), "ca.pem"),
    ("proxy", "http://user:pw@proxy:3128", "http://user:pw@proxy:3128"),
    ("api_token", f" {TOKEN}\n", Secret(TOKEN)),
    ("api_token", f"Bearer: {TOKEN}", Secret(TOKEN)),
    ("api_token", f"-H 'Authorization: Bearer {TOKEN}'", Secret(TOKEN)),
    ("api_token", f"x-api-key: {TOKEN}", Secret(TOKEN)),
    ("api_token", f"export LM_API_TOKEN={TOKEN}", Secret(TOKEN)),
    ("api_token", "c2VjcmV0TOKEN=", Secret("c2VjcmV0TOKEN=")),
]


@pytest.mark.parametrize(("name", "value", "found"), GOOD)
def test_a_good_value_is_taken(tmp_path: Path, name: str, value: object, found: object) -> None:
    """Text from the environment and values from a program mean the same."""
    setting = getattr(resolve(tmp_path, {name: value}), name)
    assert setting == found
    assert type(setting) is type(found)


BAD: list[tuple[str, object]] = [
    *[("port", value) for value in (0, 70000, -1, 1.5, "http", "", " ", True, math.nan, math.inf, 10**400, [], b"x")],
    *[("host", value) for value in ("", "http://host", "host/v1", "a b", "u@h", "h?q", "h#f", "h\\x", 5, "h\nX: y")],
    *[("host", value) for value in ("localhost:1234", "[::1]:1234", "localhost:1:2", "a,b")],
    *[
        ("base_url", value)
        for value in ("", "ftp://host", "file:///etc", "http://a b", "http://h\r\nX: y", "http//h", 5)
    ],
    *[("model", value) for value in ("", "  ", "a\nb", 5, ["m"])],
    *[("api_token", value) for value in ("", "a\nb", "a\r\nX-Evil: 1", "tökén", 5, "a\x00b", "sk lm", "$LM_API_TOKEN")],
    *[
        (name, value)
        for name in ("timeout", "first_token_timeout", "connect_timeout", "total_timeout")
        for value in (0, -1, "soon", True, math.nan, math.inf, -math.inf, 10**400, {})
    ],
    *[("retry_delay", value) for value in (-0.1, math.nan, False, "x")],
    *[("retry_attempts", value) for value in (0, 101, 1.5, math.inf, True)],
    *[(name, value) for name in ("debug", "tls_verify") for value in ("maybe", 1, 0, "", [])],
    *[("tls_ca_file", value) for value in ("", 5, "a\nb")],
    ("proxy", "socks5://host"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_named_with_its_origin(tmp_path: Path, name: str, value: object) -> None:
    """The message names the setting, the value and the origin."""
    text = refused(tmp_path, {name: value})
    assert repr(name) in text
    assert f"the keyword argument {name}=" in text
    if name not in {"api_token", "host", "base_url"}:
        assert f"not {value!r}" in text


def test_an_empty_token_is_named_as_empty(tmp_path: Path) -> None:
    """The value is hidden, so the message says that it is empty and that None means no token."""
    text = refused(tmp_path, {"api_token": ""})
    assert "'api_token' must be None where the server demands no token, or else a token that is not empty" in text


def test_a_bad_value_of_the_environment_names_the_variable(tmp_path: Path) -> None:
    """The error names the variable, not only the setting."""
    assert (
        "'port' must be a whole number from 1 to 65535, not '0' (from the environment variable LMDECK_PORT)"
        in refused(tmp_path, LMDECK_PORT="0")
    )
    assert "the environment variable LM_API_TOKEN" in refused(tmp_path, LM_API_TOKEN="a\nb")


@pytest.mark.parametrize(("file", "head"), [("lmdeck.toml", ""), ("pyproject.toml", "[tool.lmdeck]\n")])
def test_a_bad_value_of_a_file_names_the_file(tmp_path: Path, file: str, head: str) -> None:
    """The whole path, since the working directory decides."""
    (tmp_path / file).write_text(f"{head}timeout = -1\n")
    text = refused(tmp_path)
    assert "'timeout'" in text
    assert str(tmp_path / file) in text
    assert "-1" in text


def test_a_bad_value_is_refused_even_where_a_nearer_one_wins(tmp_path: Path) -> None:
    """A broken file is told now, not on the day the keyword goes."""
    assert "LMDECK_PORT" in refused(tmp_path, {"port": 5}, LMDECK_PORT="x")


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """A slip of the pen is not passed over."""
    text = refused(tmp_path, {"tiemout": 5})
    assert "'tiemout'" in text
    assert "first_token_timeout" in text
    (tmp_path / "lmdeck.toml").write_text("tiemout = 5\n")
    assert str(tmp_path / "lmdeck.toml") in refused(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"), [("api_key", "api_token"), ("max_retries", "retry_attempts"), ("time_out", "timeout")]
)
def test_an_unknown_name_is_answered_with_what_was_meant(given: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.resolve({given: "x"}, environ={}, folder=tmp_path)
    assert caught.value.hint.startswith(f"Did you mean {meant!r}? Known names: host, ")


def test_other_variables_of_the_environment_are_none_of_ours(tmp_path: Path) -> None:
    """The prefix belongs to tools beside the library too."""
    assert resolve(tmp_path, LMDECK_LIVE_URL="http://x", LM_STUDIO_PORT="5", HTTP_PROXY="http://y") == Settings()


@pytest.mark.parametrize(
    "content",
    [
        b"port = ",
        b"port = 1\nport = 2\n",
        b"\xff\xfe",
        b"timeout = " + b"9" * 5000,
        b"x = " + b"[" * 5000,
        b"# " + b"x" * CONFIG_FILE_BYTES,
    ],
    ids=["cut", "twice", "no-text", "long-number", "deep", "oversize"],
)
@pytest.mark.parametrize("file", ["lmdeck.toml", "pyproject.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    """Invalid, too large, or no text: the path is in the message."""
    (tmp_path / file).write_bytes(content)
    text = refused(tmp_path)
    assert str(tmp_path / file) in text
    assert "cannot be read" in text


def test_a_file_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch) -> None:
    """The system's own words are kept."""
    (tmp_path / "lmdeck.toml").write_text("")

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in refused(tmp_path)


def test_a_table_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """`tool.lmdeck = 5` is a slip, too."""
    (tmp_path / "pyproject.toml").write_text("[tool]\nlmdeck = 5\n")
    assert "is not a table" in refused(tmp_path)


# --- what is never shown --------------------------------------------------------------------------------------------


def secret_settings(tmp_path: Path) -> Settings:
    """Settings with a secret wherever one can be."""
    urls = {"base_url": "http://me:S3cr3t@host/v1?key=S3cr3t", "proxy": "http://me:S3cr3t@proxy:1"}
    return resolve(tmp_path, {"api_token": TOKEN, **urls})


def test_secrets_are_in_no_text_of_the_settings(tmp_path: Path) -> None:
    """Logs and tracebacks show settings; the token and URL passwords are not in them."""
    settings = secret_settings(tmp_path)
    for shown in (repr(settings), str(settings), f"{settings}", repr(settings.__rich_repr__()), "%s" % settings):  # noqa: UP031
        assert "S3cr3t" not in shown
        assert "http://host/v1" in shown
    assert repr(Secret(TOKEN)) == str(Secret(TOKEN)) == f"{Secret(TOKEN)}" == "Secret('***')"
    assert settings.api_token is not None
    assert settings.api_token.reveal() == TOKEN


def test_a_secret_is_neither_pickled_nor_encoded(tmp_path: Path) -> None:
    """Task queues and caches write what they are given to disk."""
    settings = secret_settings(tmp_path)
    for write in (pickle.dumps, msgspec.json.encode, msgspec.msgpack.encode):
        for value in (settings, settings.api_token):
            with pytest.raises(TypeError) as caught:
                write(value)
            assert "S3cr3t" not in str(caught.value)
    assert b"S3cr3t" not in pickle.dumps(msgspec.structs.replace(settings, api_token=None, base_url=None, proxy=None))


def test_settings_with_a_secret_can_be_copied(tmp_path: Path) -> None:
    """A copy within the process works."""
    settings = secret_settings(tmp_path)
    assert copy.deepcopy(settings) == copy.copy(settings) == settings
    assert copy.copy(settings.api_token) == settings.api_token


def test_secrets_compare_by_value() -> None:
    """A changed token is seen as changed."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_token", "S3cr3t\nX: y"),
        ("base_url", "ftp://me:S3cr3t@host"),
        ("base_url", "http://me:S3cr3t@ho st"),
        ("proxy", "socks5://me:S3cr3t@host"),
        ("host", "http://me:S3cr3t@host"),
        ("host", "me:S3cr3t@host"),
    ],
)
def test_secrets_are_in_no_error(tmp_path: Path, name: str, value: str) -> None:
    """A secret from any place is neither in an error's text nor in what is attached to it."""
    for keywords, environ in (({name: value}, {}), ({}, {f"LMDECK_{name.upper()}": value})):
        with pytest.raises(ConfigurationError) as caught:
            resolve(tmp_path, keywords, **environ)
        error: BaseException | None = caught.value
        while error is not None:
            assert "S3cr3t" not in f"{error} {error!r} {error.__dict__}"
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1234/v1", "http://host:1234/v1"),
        ("http://me:pw@host:1234/v1?key=1#top", "http://host:1234/v1"),
        ("http://me@host", "http://host"),
        ("me:pw@host", "host"),
        ("host:1234", "host:1234"),
        ("http://me:p/w@host", "http://host"),
        ("http://me:p#w@host", "http://host"),
        ("http://me:p?w@host", "http://host"),
        ("http://me:p@w@host", "http://host"),
        ("https://cdn.example/a@2x.png", "https://cdn.example/a@2x.png"),
        ("http://[::1]:1234", "http://[::1]:1234"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """User, password, query and fragment go; the rest stays readable."""
    assert redact_url(url) == shown


@given(st.text(min_size=1).filter(lambda text: "\n" not in text))
def test_no_password_is_odd_enough_to_be_shown(password: str) -> None:
    """A password is hidden even if nobody escaped it."""
    secret = f"S3cr3t{password}S3cr3t"
    assert "S3cr3t" not in redact_url(f"http://me:{secret}@host/v1")
    assert "S3cr3t" not in redact_url(f"http://host/v1?token={secret}")


# --- how far a project's file is trusted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ['base_url = "http://evil.example"', 'base_url = "evil.example:80/v1"', 'host = "10.0.0.9"']
)
@pytest.mark.parametrize("file", ["lmdeck.toml", "pyproject.toml"])
def test_a_project_s_file_cannot_take_the_user_s_token(tmp_path: Path, file: str, address: str) -> None:
    """Whoever wrote it would have the token: the error names file, address and what to do."""
    table = "[tool.lmdeck]\n" if file == "pyproject.toml" else ""
    (tmp_path / file).write_text(table + address)
    for keywords, environ in (
        ({"api_token": TOKEN}, {}),
        ({}, {"LM_API_TOKEN": TOKEN}),
        ({}, {"LMDECK_API_TOKEN": TOKEN}),
    ):
        text = refused(tmp_path, keywords, **environ)
        assert str(tmp_path / file) in text
        assert "is not sent to" in text
        assert TOKEN not in text
    assert resolve(tmp_path).api_token is None


@pytest.mark.parametrize(
    ("given", "environ", "file"),
    [
        ({"base_url": "http://far.example"}, {}, 'base_url = "http://evil.example"'),
        ({}, {"LMDECK_BASE_URL": "http://far.example"}, 'base_url = "http://evil.example"'),
        ({"host": "far.example"}, {}, 'base_url = "http://evil.example"\nport = 7'),
        ({}, {}, 'base_url = "http://localhost:1"'),
        ({}, {}, 'base_url = "http://127.0.0.1:1/v1"'),
        ({}, {}, 'base_url = "[::1]:1"'),
        ({}, {}, 'host = "::1"'),
        ({}, {}, "port = 5"),
        ({}, {"LMDECK_PROXY": "http://proxy.example"}, 'host = "127.0.0.1"'),
    ],
)
def test_the_token_goes_where_the_user_says_and_to_this_machine(
    tmp_path: Path, given: dict[str, Any], environ: dict[str, str], file: str
) -> None:
    """The address counts, not that there is a file."""
    (tmp_path / "lmdeck.toml").write_text(file)
    assert resolve(tmp_path, given, LM_API_TOKEN=TOKEN, **environ).api_token == Secret(TOKEN)


def test_a_file_may_bring_its_own_token(tmp_path: Path) -> None:
    """It is no secret of the user's."""
    (tmp_path / "lmdeck.toml").write_text('base_url = "http://theirs.example"\napi_token = "theirs"')
    assert resolve(tmp_path).api_token == Secret("theirs")


WAYS = 'proxy = "http://evil.example"\ntls_verify = false\ntls_ca_file = "evil.pem"\ntls_client_cert = "e"\n'


@pytest.mark.parametrize(
    ("given", "environ"),
    [
        ({"base_url": "https://far.example"}, {}),
        ({}, {"LMDECK_BASE_URL": "https://far.example"}),
        ({"host": "far"}, {}),
        ({}, {}),
    ],
    ids=["keyword", "environment", "host", "default"],
)
def test_a_file_has_no_say_in_the_way_to_a_server_that_it_does_not_name(
    tmp_path: Path, given: dict[str, Any], environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """No proxy of a stranger, and no check of certificates switched off; and that is told."""
    (tmp_path / "lmdeck.toml").write_text('base_url = "https://their.example"\n' * bool(given or environ) + WAYS)
    settings = resolve(tmp_path, given, LM_API_TOKEN=TOKEN, **environ)
    assert (settings.proxy, settings.tls_verify, settings.tls_ca_file, settings.tls_client_cert) == (
        None,
        True,
        None,
        None,
    )
    assert len(settings.notes) == len(WAYS.splitlines())
    assert [record.getMessage() for record in caplog.records] == list(settings.notes)
    assert resolve(tmp_path, {"proxy": "http://own", **given}, **environ).proxy == "http://own"


def test_a_file_has_no_say_in_the_port_of_another_machine(tmp_path: Path) -> None:
    """Another program may listen there; the port of this machine may be set."""
    (tmp_path / "lmdeck.toml").write_text("port = 9")
    assert (
        resolve(tmp_path, LMDECK_HOST="far", LM_API_TOKEN=TOKEN).port == resolve(tmp_path, {"host": "far"}).port == 1234
    )
    assert "port is not used" in resolve(tmp_path, LMDECK_HOST="far").notes[0]
    assert resolve(tmp_path, LMDECK_HOST="127.0.0.1").port == resolve(tmp_path, LM_API_TOKEN=TOKEN).port == 9


def test_a_file_says_how_its_own_server_is_reached(tmp_path: Path) -> None:
    """A file may name its server without a token of the user's, or one on this machine with its own proxy."""
    (tmp_path / "lmdeck.toml").write_text('base_url = "https://theirs.example"\n' + WAYS)
    assert (resolve(tmp_path).proxy, resolve(tmp_path).tls_verify) == ("http://evil.example", False)
    (tmp_path / "lmdeck.toml").write_text('host = "localhost"\nproxy = "http://evil.example"')
    assert "as proxy" in refused(tmp_path, LM_API_TOKEN=TOKEN)
    (tmp_path / "lmdeck.toml").write_text('host = "localhost"\nproxy = "http://127.0.0.1:8"')
    assert resolve(tmp_path, LM_API_TOKEN=TOKEN).proxy == "http://127.0.0.1:8"


def test_a_client_sends_the_token_to_no_address_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from the other side: a server that a cloned project names by this machine's own name hears nothing."""
    with Loopback(hello) as server:
        (tmp_path / "lmdeck.toml").write_text(f'base_url = "http://here.example:{server.port}"\nmodel = "m"')
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
        for make in (LMStudio, AsyncLMStudio):
            with pytest.raises(ConfigurationError, match="is not sent to"):
                make()
        (tmp_path / "lmdeck.toml").write_text(f'base_url = "{server.url}"\nmodel = "m"')
        with LMStudio() as lm:
            lm.chat().user("Hi").send()
        assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


# --- parent folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", [".git", ".hg", "pyproject.toml"])
def test_a_project_s_file_is_found_from_its_folders(tmp_path: Path, marker: str) -> None:
    """Up to the project's root, and no further; the nearest one counts."""
    project, deep = tmp_path / "project", tmp_path / "project" / "src" / "package"
    deep.mkdir(parents=True)
    (tmp_path / "lmdeck.toml").write_text("port = 1")
    assert resolve(deep).port == 1234
    (project / marker).mkdir() if marker.startswith(".") else (project / marker).touch()
    assert resolve(deep).port == 1234
    (project / "lmdeck.toml").write_text("port = 2")
    assert resolve(deep).port == 2
    assert resolve(deep).origins == {"port": str(project / "lmdeck.toml")}
    (project / "src" / "pyproject.toml").write_text("[tool.other]\nx = 1")
    assert resolve(deep).port == (2 if marker.startswith(".") else 1234)
    (project / "src" / "pyproject.toml").write_text("[tool.lmdeck]\nport = 3")
    assert resolve(deep).port == 3


def test_a_file_above_is_trusted_no_more(tmp_path: Path) -> None:
    """The same rule holds."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "lmdeck.toml").write_text('base_url = "http://evil.example"')
    assert "is not sent to" in refused(tmp_path / "deep", LM_API_TOKEN=TOKEN)


# --- misspelt variables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LMDECK_BASEURL", "LMDECK_BASE_URL"), ("LMDECK_URL", "LMDECK_BASE_URL"), ("LMDECK_API_KEY", "LMDECK_API_TOKEN"),
        ("LMDECK_MODLE", "LMDECK_MODEL"), ("LMDECK_HOSTNAME", "LMDECK_HOST"), ("LMDECK_TIME_OUT", "LMDECK_TIMEOUT"),
        ("LMDECK_RETRIES", "LMDECK_RETRY_ATTEMPTS"), ("lmdeck_model", "LMDECK_MODEL"), ("LMDECK_TLS_CA", "LMDECK_TLS_CA_FILE"),
    ],
)  # fmt: skip
def test_a_misspelt_variable_is_reported(
    tmp_path: Path, variable: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names it, and it changes nothing."""
    for _ in range(2):
        settings = resolve(tmp_path, **{variable: f"http://{tmp_path.name}"})
    assert settings == Settings()
    (note,) = settings.notes
    assert f"{variable} is not read. Did you mean {meant}?" in note
    assert len(caplog.records) <= 1


def test_a_note_holds_no_control_character(tmp_path: Path) -> None:
    """It is logged, and shown by a terminal."""
    (note,) = resolve(tmp_path, **{"LMDECK_TIMEOUTT\u202e\x9b": "1"}).notes
    assert r"LMDECK_TIMEOUTT\u202e\x9b is not read" in note


def test_variables_of_other_tools_are_not_reported(tmp_path: Path) -> None:
    """Nor those of this project that are no settings."""
    others = (
        "LMDECK_LIVE_URL",
        "LMDECK_CACHE_DIR",
        "LMDECK_SOAK_SECONDS",
        "LMDECK_SERVER_TOKEN",
        "LM_STUDIO_PORT",
        "MODEL",
    )
    assert resolve(tmp_path, **dict.fromkeys(others, "x")).notes == ()


def test_every_setting_knows_where_it_was_found(tmp_path: Path) -> None:
    """In words, for people; a default is not in it."""
    (tmp_path / "lmdeck.toml").write_text("port = 2\nmodel = 'm'")
    settings = resolve(tmp_path, {"model": "k"}, LMDECK_TIMEOUT="5")
    assert settings.origins == {
        "model": "the keyword argument model=",
        "timeout": "the environment variable LMDECK_TIMEOUT",
        "port": str(tmp_path / "lmdeck.toml"),
    }
    assert Settings().origins == {}
