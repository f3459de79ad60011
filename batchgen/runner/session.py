"""From what was said to what is to be done: manifest opened, settings resolved, jobs ready to be walked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from batchgen import endpoint, manifest, settings
from batchgen.clock import SystemClock
from batchgen.endpoint import Place
from batchgen.flags import Flags
from batchgen.folder import Records, State, read_state
from batchgen.inputs import Inputs
from batchgen.layout import IMAGES
from batchgen.manifest import Rules, Tally
from batchgen.model import Api, Header, Job, Problem, Standing, UsageError
from batchgen.plan import Mark, Plan, draw, make_plan
from batchgen.protocol.styles import STYLES, Style
from batchgen.settings import Endpoint, Settings
from batchgen.sources import STANDARD_INPUT, Source, open_manifest
from batchgen.text import counted, printable


@dataclass(frozen=True)
class Access:
    """How the API is reached: its style, the servers with their keys, and what is to be said of that."""

    style: Style
    endpoints: tuple[Endpoint, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """A manifest with the settings that hold for it; `jobs` may be walked again and again. `key_sources` says for each
    endpoint where its key is from."""

    source: Source
    settings: Settings
    inputs: Inputs
    defaults: Sequence[str]
    env: Mapping[str, str]
    key_sources: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        return Access(self.settings.api, self.settings.endpoints, self.notices)

    @property
    def manifest_from_output(self) -> str:
        """The manifest's path as the output folder remembers it: relative, so that both may be moved together."""
        return os.path.relpath(self.settings.manifest.absolute(), self.settings.output.absolute())

    def jobs(self) -> Iterator[Job | Problem]:
        return manifest.jobs(self.source.rows(), self._rules())

    def survey(self) -> Iterator[Job | Problem | Tally]:
        """As `jobs`, but where a row stands for very many, a sample of them and the number of the others."""
        return manifest.survey(self.source.rows(), self._rules())

    def _rules(self) -> Rules:
        return Rules(
            name=self.source.label,
            style=self.settings.style,
            defaults=dict(self.settings.defaults),
            overrides=dict(self.settings.overrides),
            digest=self.inputs.digest,
            default_place=self.source.default_place,
        )


def open_session(
    flags: Flags, env: Mapping[str, str], key_file: Path | None = None, *, now: datetime | None = None
) -> Session:
    """Raises UsageError (ManifestError among them) for everything that is wrong and can be known without the jobs.

    `now` (UTC) is what a time of day such as `until` is counted from; the present moment where it is not given.
    """
    if flags.manifest == STANDARD_INPUT and flags.output is None:
        flag = "-o" if flags.store is None else "--state"
        raise UsageError(f"a manifest from standard input needs an output folder; name one with {flag}")
    source = open_manifest(flags.manifest, flags.format)
    header = source.header()
    output = flags.output or default_output(flags.manifest)
    _need_unicode(flags.manifest, output)
    keys = _keys(flags, env, header, key_file)
    now = now or SystemClock().utc()
    return Session(
        source=source,
        settings=settings.resolve(flags, env, header, output=output, find_key=keys.find, now=now),
        defaults=flags.defaults,
        env=env,
        inputs=Inputs(flags.manifest.absolute().parent),
        key_sources=tuple(keys.sources),
        notices=tuple(keys.notices),
    )


def open_access(flags: Flags, env: Mapping[str, str], key_file: Path | None = None) -> Access:
    """The way to the API for who has no manifest. Raises UsageError for everything that is wrong with it."""
    header = Header()
    keys = _keys(flags, env, header, key_file)
    now = SystemClock().utc()
    found = settings.resolve(flags, env, header, output=Path(), find_key=keys.find, now=now)
    return Access(found.api, found.endpoints, tuple(keys.notices))


def _need_unicode(*paths: Path) -> None:
    """State, log and summary are JSON: they can only tell of paths that are text."""
    for path in paths:
        try:
            str(path.absolute()).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{printable(str(path.absolute()))}: a name in this path is not UTF-8; rename it"
            ) from None


def default_output(manifest_path: Path) -> Path:
    """`outputs/<manifest name>` under the nearest folder above the manifest that holds `outputs/`, else beside it."""
    place = manifest_path.absolute()
    home = next((folder for folder in place.parents if (folder / "outputs").is_dir()), place.parent)
    return home / "outputs" / place.stem


def plan_of(
    session: Session,
    standing: Callable[[Job], Standing],
    hear: Callable[[Job, Standing, Mark], None] = lambda job, standing, mark: None,
    *,
    count: bool = False,
) -> Plan:
    """What a run of this session would do where jobs stand like this. Raises ManifestError with all problems.

    `count`: of very many pending jobs in one row only a sample need be looked at, where every job is selected.
    """
    selection = draw(session.jobs(), standing, session.settings.selection)
    whole = not (selection.only or selection.limit or selection.shard or selection.shuffle is not None)
    return make_plan(session.survey() if count and whole else session.jobs(), standing, selection, hear)


def check_folder(session: Session, records: Records) -> None:
    """Raises UsageError where a run of this session must not touch the folder of these records."""
    settings, before = session.settings, read_state(records.files, records.own)
    if before and before.manifest != session.manifest_from_output and not settings.output_given:
        flag = "--state" if settings.store else "-o"
        raise UsageError(
            f"{settings.output} belongs to another manifest ({before.manifest}); choose a folder with {flag}"
        )
    _check_log(session, records, before)
    if settings.api.stands_in and records.fold.bought:
        raise UsageError(
            f"{settings.output} holds bought pictures that the sandbox must not replace; choose another folder with -o"
        )


def _check_log(session: Session, records: Records, before: State | None) -> None:
    """A log that has lost entries would have their pictures bought again."""
    if session.settings.selection.redo_missing:
        return
    known, had = records.logged, before.logged if before else 0
    advice = (
        f"bring {records.own.log} back from a copy, or add --redo-missing to make what it does not know, and pay for"
        " it, again"
    )
    if known < had:
        raise UsageError(f"{session.settings.output}: the log knows {counted(known, 'job')} of {had}; {advice}")
    if not known and not records.beside and _has_files(records, IMAGES):
        place = session.settings.store or session.settings.output
        raise UsageError(f"{place}: {IMAGES}/ holds files that no log tells of; {advice}")


def _has_files(records: Records, folder: str) -> bool:
    try:
        return any((records.files.size_of(f"{folder}/{name}") or -1) >= 0 for name in records.files.names(folder))
    except FileNotFoundError:
        return False


def need_key(access: Access) -> None:
    """Raises UsageError where requests would need keys and there are none; tells of every one that is missing."""
    if missing := [why for each in access.endpoints if (why := _lacks_key(access.style, each))]:
        raise UsageError("\n".join(missing))


def _lacks_key(style: Style, endpoint: Endpoint) -> str | None:
    if style.stands_in or endpoint.key is not None:
        return None
    of, place = f"{endpoint.name}: " if endpoint.name else "", endpoint.place
    if place.missing:
        return f"{of}the headers of the API need {', '.join(place.missing)}; set the variable first"
    if endpoint.withheld:
        return (
            f"{of}there is no API key for {printable(place.host, 100)}: an address that a manifest names gets only"
            f" the key that it names with it; add key_env: {endpoint.key_variable} to its api, or use --api-key-file"
        )
    return (
        f"{of}there is no API key; put it into the environment variable {endpoint.key_variable}"
        " or name a file with --api-key-file"
        " (to try without one: --api sandbox)"
    )


def _keys(flags: Flags, env: Mapping[str, str], header: Header, file: Path | None) -> _Keys:
    apis = settings.apis_of(flags, env, header)
    keys = _Keys(file, env, STYLES[apis[0].style])
    if file and len(apis) > 1:
        without = [api for api in apis if not env.get(keys.variable(api))]
        if len(without) != 1:
            raise UsageError(
                f"--api-key-file holds one key, and the manifest names {len(apis)} endpoints; name a variable for each"
                " key with key_env (the file can only be the key of the single one whose variable is not set)"
            )
        keys.of_file = without[0]
    return keys


@dataclass
class _Keys:
    """Finds keys: in the file that was named, else in the endpoint's variable, else in systemd's credentials.

    `of_file` is the endpoint that the file is for; None is the only one.
    """

    file: Path | None
    env: Mapping[str, str]
    style: Style
    of_file: Api | None = None
    notices: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def variable(self, api: Api) -> str:
        return endpoint.key_variable(self.style, api)

    def find(self, api: Api, place: Place) -> str | None:
        """The key for an endpoint's place, and `notices` about it."""
        variable, said = self.variable(api), self.file if self.of_file in (None, api) else None
        may_go = endpoint.key_may_go(place, self.style, api)
        file = said or (self._credential(variable) if may_go else None)
        key = self._read(file) if file else self.env.get(variable) if may_go else None
        from_variable = bool(key) and not said
        self.sources.append("--api-key-file" if said else "systemd's credential" if file else variable if key else "")
        self.notices += endpoint.disclosures(place, api, has_key=from_variable, variable=variable)
        return key

    def _credential(self, variable: str) -> Path | None:
        folder = self.env.get("CREDENTIALS_DIRECTORY")
        if self.env.get(variable) or not folder:
            return None
        credential = Path(folder) / variable.lower()
        return credential if credential.is_file() else None

    def _read(self, file: Path) -> str:
        try:
            open_to_others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            key = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the key file {file} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
        if not key.strip():
            raise UsageError(f"the key file {file} is empty")
        # A credential's mode shows the mask of its access list, not who may read it.
        if open_to_others and self.file:
            self.notices.append(f"the key file {file} can be read by others; chmod 600 {file}")
        return key
