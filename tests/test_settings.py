"""One Settings from flags, environment, manifest and defaults: who wins, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.flags import Flags
from batchgen.limits import Limits
from batchgen.manifest import LIMITS
from batchgen.model import Api, Header, Outcome, Secret, Selection, Shard, UsageError
from batchgen.protocol import nebula
from batchgen.settings import DEFAULT_PATIENCE_S, Settings, resolve, style_of

KEY = "sk-very-secret-0123456789"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def settings(
    env: Mapping[str, str] | None = None,
    header: Header | None = None,
    *,
    key: str | None = KEY,
    now: datetime = NOON,
    **flags: Any,
) -> Settings:
    """The settings of a run of m.yaml with these flags."""
    said = Flags(Path("m.yaml"), **flags)
    return resolve(said, env or {}, header or Header(), output=Path("o"), find_key=lambda api, place: key, now=now)


def refusal(*args: Any, **flags: Any) -> str:
    """Why settings are refused."""
    with pytest.raises(UsageError) as caught:
        settings(*args, **flags)
    return str(caught.value)


# Limits

DEFAULTS: dict[str, Any] = {
    "concurrency": 8,
    "requests_per_minute": None,
    "requests_per_day": None,
    "max_cost_usd": None,
    "max_requests": None,
    "attempts": 4,
    "uncertain_retries": 1,
    "timeout_s": 180.0,
}


def test_every_limit_has_a_default() -> None:
    """Limits that nobody sets are as documented, and the table of these tests misses none."""
    assert {name: getattr(Limits(), name) for name in LIMITS} == DEFAULTS
    assert settings().limits == Limits()


@pytest.mark.parametrize("name", LIMITS)
def test_who_wins(name: str) -> None:
    """A limit comes from the flag, else the environment, else the manifest, else the default."""
    env, header, flag = {f"BATCHGEN_{name.upper()}": "5"}, Header(limits={name: 6}), {name: 7}
    assert getattr(settings(env, header, limits=flag).limits, name) == 7
    assert getattr(settings(env, header, limits={name: None}).limits, name) == 5
    assert getattr(settings({}, header).limits, name) == 6
    assert getattr(settings({f"BATCHGEN_{name.upper()}": ""}, header).limits, name) == 6
    assert getattr(settings().limits, name) == DEFAULTS[name]


def test_one_limit_leaves_the_others() -> None:
    """Each limit is looked up for itself."""
    found = settings({"BATCHGEN_ATTEMPTS": "2"}, Header(limits={"timeout_s": 60}), limits={"concurrency": 3}).limits
    assert found == Limits(concurrency=3, attempts=2, timeout_s=60.0)


BAD_LIMITS = [
    ("concurrency", "0"),
    ("concurrency", "-1"),
    ("concurrency", "2.5"),
    ("concurrency", "10001"),
    ("concurrency", "many"),
    ("concurrency", "true"),
    ("requests_per_minute", "0"),
    ("requests_per_minute", "nan"),
    ("requests_per_minute", "inf"),
    ("requests_per_day", "0"),
    ("max_cost_usd", "-0.01"),
    ("max_cost_usd", "nan"),
    ("max_cost_usd", ".nan"),
    ("max_cost_usd", ".inf"),
    ("max_cost_usd", "$5"),
    ("max_requests", "0"),
    ("attempts", "0"),
    ("attempts", "101"),
    ("uncertain_retries", "-1"),
    ("uncertain_retries", "11"),
    ("timeout_s", "0"),
    ("timeout_s", "86401"),
]


@pytest.mark.parametrize(("name", "value"), BAD_LIMITS, ids=[f"{name}={value}" for name, value in BAD_LIMITS])
def test_senseless_limits_are_refused(name: str, value: str) -> None:
    """A limit that cannot be meant stops the run before it sends anything, wherever it was said."""
    assert refusal({f"BATCHGEN_{name.upper()}": value}).startswith(f"{name}: expected")
    assert refusal(limits={name: value}).startswith(f"{name}: expected")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_cost_usd", "0"), ("uncertain_retries", "0"), ("concurrency", "10000"), ("timeout_s", "1")],
)
def test_edges_of_limits_are_allowed(name: str, value: str) -> None:
    """The least and the greatest value of a limit are values; zero is not "not said"."""
    assert getattr(settings({f"BATCHGEN_{name.upper()}": value}).limits, name) == float(value)
    assert getattr(settings(limits={name: float(value)}).limits, name) == float(value)


def test_a_senseless_limit_names_the_variable_that_said_it() -> None:
    """Nobody remembers what a shell exports: the message says where the value came from, unless a flag said it."""
    env = {"BATCHGEN_CONCURRENCY": "x"}
    expected = "concurrency: expected a whole number from 1 to 10000, got"
    assert refusal(env) == f"{expected} 'x' in BATCHGEN_CONCURRENCY"
    assert refusal(env, limits={"concurrency": "y"}) == f"{expected} 'y'"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("BATCHGEN_RPM", "did you mean BATCHGEN_REQUESTS_PER_MINUTE?"),
        ("BATCHGEN_MAX_COST", "did you mean BATCHGEN_MAX_COST_USD?"),
        ("BATCHGEN_API_URI", "did you mean BATCHGEN_API_URL?"),
        ("BATCHGEN_OUTPUT", "known: BATCHGEN_API, BATCHGEN_API_URL, BATCHGEN_EMBED, BATCHGEN_CONCURRENCY, "),
    ],
)
def test_an_unknown_variable_is_told_with_the_one_that_was_meant(variable: str, told: str) -> None:
    """A variable named after a flag is told with the name that holds, one that is like nothing with all there are."""
    assert refusal({variable: "3"}).startswith(f"{variable} is not a known variable; {told}")


@pytest.mark.parametrize(
    ("flag", "env", "header", "found"),
    [
        (None, "", None, True),
        (None, "", False, False),
        (None, "true", False, True),
        (None, " False ", True, False),
        (True, "false", False, True),
        (False, "true", True, False),
    ],
)
def test_embedding_is_on_unless_switched_off(flag: bool | None, env: str, header: bool | None, found: bool) -> None:
    """The flag beats the variable, the variable beats the manifest, and what nobody says is on."""
    assert settings({"BATCHGEN_EMBED": env}, Header(embed=header), embed=flag).embed is found


def test_a_switch_takes_two_words() -> None:
    """What is neither true nor false is refused, with the variable that said it."""
    assert refusal({"BATCHGEN_EMBED": "off"}) == "embed: expected true or false, got 'off' in BATCHGEN_EMBED"


def test_an_unknown_limit_is_refused() -> None:
    """A misspelt limit from a calling program is not silently no limit."""
    message = refusal(limits={"concurency": 3})
    assert message == "'concurency' is not a known field; did you mean 'concurrency'?"


def test_a_blank_variable_is_not_said() -> None:
    """A variable that holds only blanks does not take the manifest's money limit away."""
    found = settings({"BATCHGEN_MAX_COST_USD": " "}, Header(limits={"max_cost_usd": 5}))
    assert found.limits.max_cost_usd == 5


# Style and address


def test_who_wins_the_style() -> None:
    """The style comes from the flag, else the environment, else the manifest, else it is nebula."""
    env, header = {"BATCHGEN_API": "sandbox"}, Header(apis=(Api("sandbox"),))
    assert style_of(Flags(Path("m"), api="nebula"), env, header) == "nebula"
    assert style_of(Flags(Path("m")), env, Header(apis=(Api("nebula"),))) == "sandbox"
    assert style_of(Flags(Path("m")), {}, header) == "sandbox"
    assert style_of(Flags(Path("m")), {}, Header()) == "nebula"


def test_an_unknown_style_is_refused() -> None:
    """A style that is not known is named, harmlessly, with those that are."""
    message = refusal(api="dalle\x1b[2J")
    assert "dalle" in message
    assert "\x1b" not in message
    assert message.endswith("use nebula, sandbox or openai")


def test_who_wins_the_address() -> None:
    """The address comes from the flag, else the style's variable, else the manifest, else the style."""
    env = {"NEBULA_API_URL": "https://env/v1", "BATCHGEN_API_URL": "https://wrong"}
    header = Header(apis=(Api("nebula", "https://manifest/v1"),))
    assert settings(env, header, api_url="https://flag/v1").url == "https://flag/v1"
    assert settings(env, header).url == "https://env/v1"
    assert settings({}, header).url == "https://manifest/v1"
    assert settings({"NEBULA_API_URL": ""}).url == nebula.DEFAULT_URL
    assert nebula.DEFAULT_URL == "https://api.nebulablock.com/api/v1"


def test_each_endpoint_has_its_own_limits() -> None:
    """What an entry says holds for it, else what the manifest says; the run's are the sums, where all have one."""
    apis = (
        Api("openai", "https://a/v1", limits={"concurrency": 2, "requests_per_minute": 60, "timeout_s": 30}),
        Api("openai", "https://b/v1", limits={"requests_per_day": 100}),
    )
    header = Header(apis=apis, limits={"concurrency": 3, "requests_per_minute": 10, "max_cost_usd": 5})
    found = settings({}, header)
    first, second = (each.limits for each in found.endpoints)
    assert (first.concurrency, first.requests_per_minute, first.timeout_s) == (2, 60, 30)
    assert (second.concurrency, second.requests_per_minute, second.requests_per_day) == (3, 10, 100)
    run = found.limits
    assert (run.concurrency, run.requests_per_minute, run.requests_per_day, run.timeout_s) == (5, 70, None, 180)
    assert run.max_cost_usd == 5
    flagged = settings({"BATCHGEN_CONCURRENCY": "7"}, header, limits={"requests_per_minute": 5})
    assert [(e.limits.concurrency, e.limits.requests_per_minute) for e in flagged.endpoints] == [(7, 5), (7, 5)]


def test_a_shard_takes_its_part_of_every_endpoint() -> None:
    """All shards together keep the limits of each."""
    apis = tuple(Api(url=f"https://{name}/v1", limits={"requests_per_day": n}) for name, n in (("a", 10), ("b", 5)))
    selection = Selection(shard=Shard(1, 2))
    found = settings({}, Header(apis=apis), selection=selection)
    assert [each.limits.requests_per_day for each in found.endpoints] == [5, 3]
    few = tuple(Api(url=f"https://{name}/v1", limits={"requests_per_day": 1}) for name in "ab")
    message = "requests_per_day 1 leaves nothing for shard 2/2"
    assert refusal({}, Header(apis=few), selection=Selection(shard=Shard(2, 2))).count(message) == 1


def test_the_same_account_under_two_names_is_told() -> None:
    """Two variables with one key for one address would have its limits twice; the key is not shown."""
    apis = tuple(Api(key_env=f"{name}_KEY", name=name) for name in "AB")
    message = refusal({}, Header(apis=apis))
    assert "A_KEY and B_KEY hold the same key for https://api.nebulablock.com/api/v1" in message and KEY not in message


def test_the_style_alone_leaves_the_list() -> None:
    """`--api` with the style that the manifest has anyway names no other server."""
    apis = (Api("openai", "https://a/v1", "A_KEY"), Api("openai", "https://b/v1", "B_KEY"))
    by_flag = settings({}, Header(apis=apis), api="openai")
    by_variable = settings({"BATCHGEN_API": "openai"}, Header(apis=apis))
    for found in (by_flag, by_variable):
        assert [each.place.url for each in found.endpoints] == ["https://a/v1", "https://b/v1"]


def test_one_endpoint_has_no_name() -> None:
    """A list of length one is as good as no list."""
    one = settings({}, Header(apis=(Api(name="mine"),)))
    assert [each.name for each in one.endpoints] == [""]
    two = settings({}, Header(apis=(Api("openai", "http://localhost:1"), Api("openai", "http://localhost:2"))))
    assert [each.name for each in two.endpoints] == ["localhost:1", "localhost:2"]


@pytest.mark.parametrize(
    ("env", "flags"),
    [
        ({}, {"api": "sandbox"}),
        ({}, {"api_url": "https://c/v1"}),
        ({"BATCHGEN_API": "nebula"}, {}),
        ({"OPENAI_BASE_URL": "https://c/v1"}, {}),
    ],
    ids=["style", "url", "style variable", "url variable"],
)
def test_what_names_an_endpoint_replaces_the_list(env: dict[str, str], flags: dict[str, Any]) -> None:
    """Nothing of the list's addresses, keys and limits is left."""
    apis = (Api("openai", "https://a/v1", "A_KEY", limits={"concurrency": 2}), Api("openai", "https://b/v1", "B_KEY"))
    [only] = settings(env, Header(apis=apis), **flags).endpoints
    assert (only.api.key_env, only.limits.concurrency) == (None, 8)
    assert only.place.url not in ("https://a/v1", "https://b/v1")


def test_the_sandbox_has_its_own_address() -> None:
    """The sandbox runs in the process unless it has an address of its own, and never asks the paid one."""
    header = Header(apis=(Api("nebula", "https://manifest/v1"),))
    inside = settings({"NEBULA_API_URL": "https://env/v1"}, header, api="sandbox")
    assert (inside.url, inside.in_process) == ("", True)
    beside = settings({"BATCHGEN_API_URL": "http://localhost:8000/"}, header, api="sandbox")
    assert (beside.url, beside.in_process) == ("http://localhost:8000", False)
    assert not settings().in_process


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://host", "https://host"),
        ("https://host/", "https://host"),
        ("https://host/v1//", "https://host/v1"),
        ("https://host:8443/a/b", "https://host:8443/a/b"),
        ("https://192.0.2.1/v1", "https://192.0.2.1/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_good_addresses(url: str, kept: str) -> None:
    """Encrypted addresses pass, and plain ones of this machine; slashes at the end do not matter."""
    assert settings(api_url=url).url == kept
    assert settings({"NEBULA_API_URL": url}).url == kept
    assert settings({}, Header(apis=(Api(url=url),))).url == kept


BAD_ADDRESSES = [
    ("http://host/v1", "use https"),
    ("http://127.0.0.1.evil.example", "use https"),
    ("http://localhost.evil.example", "use https"),
    ("http://10.0.0.1", "use https"),
    ("http://0.0.0.0", "use https"),
    ("http://[2001:db8::1]", "use https"),
    ("ftp://host", "expected https://HOST/PATH"),
    ("file:///etc/passwd", "expected https://HOST/PATH"),
    ("host/v1", "expected https://HOST/PATH"),
    ("https://", "expected https://HOST/PATH"),
    ("https:///v1", "expected https://HOST/PATH"),
    ("/", "expected https://HOST/PATH"),
    ("https://user:hunter2@host", "a user or password"),
    ("https://user@host", "a user or password"),
    ("https://:hunter2@host", "a user or password"),
    ("http://user:hunter2@localhost", "a user or password"),
    ("https://host/?q=1", "no ? or # part"),
    ("https://host/#x", "no ? or # part"),
]


@pytest.mark.parametrize(("url", "why"), BAD_ADDRESSES, ids=[row[0] for row in BAD_ADDRESSES])
def test_bad_addresses(url: str, why: str) -> None:
    """An address that would send the key in the clear, or hold another secret, is refused without repeating it."""
    message = refusal(api_url=url)
    assert why in message
    assert "hunter2" not in message
    assert refusal({"NEBULA_API_URL": url}) == refusal({}, Header(apis=(Api(url=url),))) == message


@pytest.mark.parametrize("url", ["https://[::1", "https://[x]/", "https://h]x"])
def test_broken_brackets_are_refused(url: str) -> None:
    """An address with brackets that do not fit is a usage error, not an error in batchgen."""
    assert "API address" in refusal(api_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://host:99999",
        "https://host:abc",
        "https://ho st",
        " https://host",
        "https://host/v1\n",
        "https://\u202eh",
    ],
    ids=["port", "no port", "blank", "blank before", "newline", "bidirectional"],
)
def test_addresses_that_cannot_be_one_are_refused(url: str) -> None:
    """What no request can be sent to is refused before the first job is tried."""
    assert "API address" in refusal(api_url=url)


def test_addresses_are_shown_harmlessly() -> None:
    """An address in a message cannot drive a terminal."""
    assert "\x1b" not in refusal(api_url="http://host/\x1b[2J")


# The key


@pytest.mark.parametrize(
    ("key", "kept"),
    [(KEY, KEY), (f" {KEY}\n", KEY), ("", None), ("  \n", None), (None, None)],
    ids=["key", "blanks around", "empty", "blank", "none"],
)
def test_good_keys(key: str | None, kept: str | None) -> None:
    """A key is taken without the line end of its file; an empty one is none."""
    found = settings(key=key).endpoints[0].key
    assert (found.reveal() if found else None) == kept


@pytest.mark.parametrize(
    "inside",
    [" ", "\n", "\r", "\t", "\x00", "\x1b", "é", "\u200b", "\ufeff"],
    ids=["blank", "newline", "return", "tab", "NUL", "escape", "letter", "zero width", "byte order mark"],
)
def test_bad_keys(inside: str) -> None:
    """A key with characters that no header can hold is refused, and not shown."""
    message = refusal(key=KEY[:10] + inside + KEY[10:])
    assert "API key" in message
    assert KEY[:10] not in message
    assert KEY[10:] not in message


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_quoted_key_is_refused(quote: str) -> None:
    """A key that was pasted with its quotes is told before the server refuses it."""
    assert "API key" in refusal(key=f"{quote}{KEY}{quote}")


def test_the_key_is_never_shown() -> None:
    """No way of printing settings or key shows the key."""
    found = settings(key=KEY)
    given = found.endpoints[0].key
    for shown in (repr(found), str(found), f"{found}", repr(given), str(given), f"{given}", f"{[found]}"):
        assert KEY not in shown
    assert "Secret(***)" in repr(found)


_letters = st.text("abc", min_size=1, max_size=12)


@given(_letters, st.lists(_letters, max_size=4))
def test_the_key_is_hidden_in_what_servers_say(key: str, around: list[str]) -> None:
    """A key that a server echoes, however often, is hidden in text and in bytes; the rest stays."""
    said = key.join(["-", *around, "-"])
    assert key not in Secret(key).hide(said)
    assert key.encode() not in Secret(key).hide_bytes(said.encode())
    assert Secret("x" + key).hide(said) == said


def test_without_a_key_nothing_is_hidden() -> None:
    """An empty key hides nothing, and a hidden one leaves three stars."""
    assert Secret("").hide("abc") == "abc"
    assert Secret("key").beside(Secret("key-of-another")).hide("key, key-of-another") == "***, ***"
    assert Secret("").hide_bytes(b"abc") == b"abc"
    assert Secret("k1").hide("a k1 k1") == "a *** ***"
    assert Secret("k1").hide_bytes(b"a k1 k1") == b"a *** ***"


# The rest


def test_all_problems_are_told_at_once() -> None:
    """Whoever mends a command sees every mistake in it, one a line."""
    message = refusal(
        {"BATCHGEN_ATTEMPTS": "x", "BATCHGEN_TIMEOUT_S": "y"},
        api_url="http://host",
        key="a b",
        limits={"concurrency": 0},
        defaults=["width=wide", "id=x", "nonsense"],
        until="noon",
    )
    lines = message.split("\n")
    starts = ("API address", "the API key", "attempts:", "timeout_s:", "concurrency:", "-D width:", "-D id:")
    for start in (*starts, "-D nonsense:", "--until 'noon':"):
        assert sum(line.startswith(start) for line in lines) == 1
    assert len(lines) == 9


def test_what_a_run_was_told() -> None:
    """Everything else arrives where the run looks for it."""
    selection = Selection(redo=True)
    header = Header(defaults={"width": 8}, prices_usd={"m": 0.5})
    found = settings(
        {},
        header,
        output=Path("given"),
        defaults=["height=9"],
        selection=selection,
        give_up_after_s=5.0,
        on_quota="wait",
        check="full",
    )
    assert found.check_pixels
    assert (found.manifest, found.output, found.output_given) == (Path("m.yaml"), Path("o"), True)
    assert (found.defaults, found.overrides, found.prices_usd) == ({"width": 8}, {"height": 9}, {"m": 0.5})
    assert (found.selection, found.give_up_after_s, found.wait_for_quota) == (selection, 5.0, True)
    plain = settings()
    assert not plain.check_pixels
    assert (plain.output_given, plain.wait_for_quota, plain.give_up_after_s) == (False, False, DEFAULT_PATIENCE_S)
    assert (plain.selection, plain.style, plain.until) == (Selection(), "nebula", None)


def test_flags_of_programs() -> None:
    """Programs name flags as the command line does; what is no flag by itself is a limit."""
    flags = Flags.of(
        "m.yaml", output="o", defaults={"width": 8, "params.s": "x"}, retry=["failed"], only=["a*"], limit=3, attempts=2
    )
    assert (flags.manifest, flags.output, flags.limits) == (Path("m.yaml"), Path("o"), {"attempts": 2})
    assert flags.defaults == ["width=8", "params.s=x"]
    assert flags.selection == Selection(frozenset({Outcome.FAILED}), False, False, ("a*",), 3)
    assert Flags.of("m.yaml", api="sandbox", on_quota="wait").api == "sandbox"
    assert {Flags.of("m.yaml", shuffle=seed).selection.shuffle for seed in (7, "7")} == {"7"}
    assert Flags.of(Path("m.yaml")) == Flags(Path("m.yaml"), defaults=())


# Until when

UNTIL = [
    pytest.param("12:01Z", "2026-11-22T12:01", id="in a minute"),
    pytest.param("23:59Z", "2026-11-22T23:59", id="tonight"),
    pytest.param("00:00Z", "2026-11-23T00:00", id="midnight"),
    pytest.param("04:00Z", "2026-11-23T04:00", id="sixteen hours away"),
]
TOO_FAR = ["12:00Z", "11:59Z", "04:01Z"]


@pytest.mark.parametrize(("text", "moment"), UNTIL)
def test_until(text: str, moment: str) -> None:
    """The run ends when clocks next show this time, at most sixteen hours away."""
    assert settings(until=text).until == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", TOO_FAR)
def test_a_late_start_is_refused(text: str) -> None:
    """A run that starts after its end does not run until the next night; this very minute counts as tomorrow."""
    assert "more than 16 hours away" in refusal(until=text)


@pytest.mark.parametrize("text", ["noon", "25:00", "6", "06:30+", "-1:00", "06:60", "Z", "6:30"])
def test_senseless_times_are_refused(text: str) -> None:
    """What is no time of day is told, with an example."""
    assert "expected a time of day such as 06:30" in refusal(until=text)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks on the wall show Berlin's time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


BERLIN = [
    pytest.param("2026-07-01T20:00", "06:30", "2026-07-02T04:30", id="summer"),
    pytest.param("2026-12-01T20:00", "06:30", "2026-12-02T05:30", id="winter"),
    pytest.param("2026-10-24T20:00", "06:30", "2026-10-25T05:30", id="clocks go back in the night"),
    pytest.param("2026-03-28T20:00", "06:30", "2026-03-29T04:30", id="clocks go forward in the night"),
    pytest.param("2026-07-01T22:30", "06:30", "2026-07-02T04:30", id="after local midnight, before UTC's"),
    pytest.param("2026-07-01T20:00", "04:30Z", "2026-07-02T04:30", id="UTC all the same"),
]


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(("now", "text", "moment"), BERLIN)
def test_until_by_the_clock_on_the_wall(now: str, text: str, moment: str) -> None:
    """A time without Z is local, also in a night in which the clocks change."""
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert settings(now=at, until=text).until == datetime.fromisoformat(moment).replace(tzinfo=UTC)


def test_an_offset_is_not_ignored() -> None:
    """A time of another zone is refused or understood."""
    try:
        found = settings(until="14:00+01:00").until
    except UsageError:
        return
    assert found == datetime(2026, 11, 22, 13, tzinfo=UTC)


def test_an_empty_address_is_a_mistake() -> None:
    """`--api-url "$UNSET"` must not send key and money to the default address."""
    assert "--api-url is empty" in refusal(api_url="")
