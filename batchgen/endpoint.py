"""Which server is asked, and what may go there: address, key variable, headers. Decides; reads no variable by itself.

A manifest may come from somebody else. So an address that a manifest names gets only what the manifest names with it,
only from variables whose names say that they hold a key for a server, and what goes where is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from batchgen.address import is_loopback
from batchgen.model import Api, Secret
from batchgen.protocol.styles import Style
from batchgen.text import printable

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z0-9_]+)\}|([A-Za-z_][A-Za-z0-9_]*))?")
_KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_(KEY|TOKEN)")
# By their names these hold what no image server is to see.
_OF_OTHERS = re.compile(r"^(AWS|GH|GITHUB|GITLAB|CI|NPM|PYPI|TWINE|UV|SSH|KUBE|DOCKER|VAULT)_|SECRET|PRIVATE|SIGNING")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "content-type", "cookie", "expect", "host", "te"),
        *("trailer", "transfer-encoding", "upgrade", "user-agent"),
    )
)
_SECRET_HEADER = re.compile(r"auth|key|token|secret|password|credential", re.IGNORECASE)
_OWN_NETWORK = (".local", ".lan", ".internal", ".home.arpa")


@dataclass(frozen=True)
class Place:
    """Where requests go: the API's address and, if it is not the style's own, the path of the generation below it.

    `by_manifest`: the manifest named the address. `headers` are ready to be sent, `variables` what they were read from;
    `missing` are variables without a value, which only who sends something needs.
    """

    url: str
    by_manifest: bool = False
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def key_variable(style: Style, api: Api) -> str:
    """The name of the environment variable that holds the key."""
    return api.key_env or style.key_env


def key_may_go(place: Place, style: Style, api: Api) -> bool:
    """Whether the variable's value may be sent there: the style's own is not for an address that a manifest names."""
    return not style.stands_in and (not place.by_manifest or api.key_env is not None)


def find_place(style: Style, api: Api, said: str | None, env: Mapping[str, str], problems: list[str]) -> Place:
    """The server to ask, `said` on the command line, else by the style's variable, else by the manifest (`api`).

    Adds to `problems` what is wrong. An address is not judged here by whether a key may go there: see `exposed`.
    """
    if said == "":
        problems.append("--api-url is empty; was a shell variable not set?")
    url = said or env.get(style.url_env)
    by_manifest = not url and api.url is not None
    url = url or api.url or style.default_url
    if api.key_env:
        problems += _wrong_variable(api.key_env, "api.key_env")
    headers, named = _headers(api.headers, env, problems)
    variables = tuple(name for name in named if env.get(name))
    return Place(
        url=_checked(url, problems) if url else "",
        by_manifest=by_manifest,
        path=api.path,
        headers=headers,
        variables=variables,
        missing=tuple(name for name in named if not env.get(name)),
        secrets=tuple(env[name].strip() for name in variables),
    )


def exposed(place: Place, style: Style, key: str | None) -> str | None:
    """Why a request there would give away what it must not; None where it would not."""
    if not place.url.lower().startswith("http://") or is_loopback(place.host):
        return None
    if style.keyless and _own_network(place.host) and not key and not place.secrets:
        return None
    secret = key or place.secrets or not style.keyless
    why = "http would send the key in the clear" if secret else "http is for this machine and your own network"
    return f"API address {printable(place.url, 100)!r}: {why}; use https"


def key_for(place: Place, style: Style, api: Api, key: str | None) -> Secret | None:
    """What travels with every request and is never shown; None where there is no key, and the server or the manifest
    wants one."""
    if place.missing or (api.key_env and not key):
        return None
    keyless = style.keyless and (_own_network(place.host) or is_loopback(place.host) or place.secrets)
    return Secret(key or "", *place.secrets) if key or keyless else None


def disclosures(place: Place, api: Api, *, has_key: bool, variable: str) -> list[str]:
    """Which variable's value goes where because a manifest says so."""
    names = [variable] if has_key and (place.by_manifest or api.key_env) else []
    names += place.variables
    if not names or is_loopback(place.host):
        return []
    return [f"the value of {' and '.join(names)} goes to {printable(place.host, 100)}, as the manifest says"]


def names(style: Style, endpoints: Sequence[tuple[Api, Place]]) -> list[str]:
    """What endpoints are called: as the manifest says, else by their hosts, with the key's variable where these are not
    enough, and with their number where nothing else tells them apart.

    >>> from batchgen.protocol.styles import OPENAI
    >>> names(OPENAI, [(Api(key_env=key), Place("http://gpu:8000/v1")) for key in ("A_KEY", "B_KEY", "B_KEY")])
    ['gpu:8000 (A_KEY)', 'gpu:8000 (B_KEY)', 'gpu:8000 (B_KEY) 3']
    """
    hosts = [api.name or printable(urlsplit(place.url).netloc, 60) for api, place in endpoints]
    found: list[str] = []
    for number, ((api, _), host) in enumerate(zip(endpoints, hosts, strict=True), 1):
        name = host if hosts.count(host) == 1 else f"{host} ({key_variable(style, api)})"
        found.append(f"{name} {number}" if name in found else name)
    return found


def _checked(url: str, problems: list[str]) -> str:
    try:
        parts = urlsplit(url)
        senseless = not url.isascii() or not url.isprintable() or " " in url or parts.port == 0
    except ValueError:
        problems.append(f"API address {printable(url.rpartition('@')[2], 100)!r}: expected https://HOST/PATH")
        return ""
    shown = printable(url.replace(parts.netloc, parts.netloc.rpartition("@")[2]), 100)
    if senseless or parts.scheme not in ("http", "https") or not parts.hostname:
        problems.append(f"API address {shown!r}: expected https://HOST/PATH")
    elif parts.username or parts.password:
        problems.append(f"API address {shown!r}: a user or password in it would end up in messages; use the key")
    elif parts.query or parts.fragment:
        problems.append(f"API address {shown!r}: expected no ? or # part")
    else:
        return url.rstrip("/")
    return ""


def _headers(
    said: Mapping[str, str], env: Mapping[str, str], problems: list[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The headers with their variables in place, and the names of these."""
    found: dict[str, str] = {}
    used: list[str] = []
    for name, value in said.items():
        shown = f"api.headers: {printable(name, 60)}"
        names = [match[2] or match[3] for match in _VARIABLE.finditer(value) if match[2] or match[3]]
        wrong = [line for variable in names for line in _wrong_variable(variable, shown)]
        if not _HEADER_NAME.fullmatch(name):
            wrong.append(f"{shown}: not the name of a header")
        elif name.lower() in _OURS:
            wrong.append(f"{shown}: batchgen sets this header itself")
        elif _SECRET_HEADER.search(name) and not names:
            fix = "use key_env" if name.lower() == "authorization" else "write $NAME, the variable that holds it"
            wrong.append(f"{shown}: a key does not belong into a manifest; {fix}")
        if not wrong:
            whole = _VARIABLE.sub(lambda m: _value(m, env), value)
            found[name] = whole
            if not whole.isascii() or not whole.isprintable():
                wrong.append(f"{shown}: a header may hold printable ASCII characters only")
        problems += wrong
        used += [] if wrong else names
    return found, tuple(dict.fromkeys(used))


def _value(match: re.Match[str], env: Mapping[str, str]) -> str:
    name = match[2] or match[3]
    return env.get(name, "").strip() if name else "$"


def _wrong_variable(name: str, where: str) -> list[str]:
    """Why a manifest may not have this variable's value sent."""
    if not _KEY_NAME.fullmatch(name):
        # Not shown: it could be the key itself.
        return [f"{where}: only variables whose names end in _KEY or _TOKEN are sent; this one does not"]
    shown = printable(name, 60)
    if _OF_OTHERS.search(name.upper()):
        fix = "if it is meant, put the key into a variable of another name"
        return [f"{where}: {shown} is another service's secret by its name, and is not sent; {fix}"]
    return []


def _own_network(host: str) -> bool:
    """Whether this names a machine of one's own network, which a stranger's cannot be."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith(_OWN_NETWORK) or "." not in host
