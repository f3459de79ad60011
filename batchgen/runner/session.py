"""From what was said to what is to be done: manifest opened, settings resolved, jobs ready to be walked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from batchgen import manifest, settings
from batchgen.clock import SystemClock
from batchgen.folder import Records, State, read_state
from batchgen.inputs import Inputs
from batchgen.layout import IMAGES
from batchgen.manifest import Rules, Tally
from batchgen.model import Job, Problem, Standing, UsageError
from batchgen.plan import Mark, Plan, draw, make_plan
from batchgen.settings import SANDBOX, Flags, Settings
from batchgen.sources import STANDARD_INPUT, Source, open_manifest
from batchgen.text import counted, printable


@dataclass(frozen=True)
class Session:
    """A manifest with the settings that hold for it; `jobs` may be walked again and again."""

    source: Source
    key_variable: str
    settings: Settings
    inputs: Inputs
    defaults: Sequence[str]
    env: Mapping[str, str]
    notices: tuple[str, ...] = ()

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
    variable = settings.key_variable(header)
    key, notices = _find_key(key_file, env, variable)
    return Session(
        source=source,
        key_variable=variable,
        settings=settings.resolve(flags, env, header, output=output, key=key, now=now or SystemClock().utc()),
        defaults=flags.defaults,
        env=env,
        inputs=Inputs(flags.manifest.absolute().parent),
        notices=notices,
    )


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
    if settings.style == SANDBOX and records.fold.bought:
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


def need_key(session: Session) -> None:
    """Raises UsageError where a paid request would need a key and there is none."""
    if session.settings.style != SANDBOX and session.settings.key is None:
        raise UsageError(
            f"there is no API key; put it into the environment variable {session.key_variable}"
            " or name a file with --api-key-file"
            " (to try without one: --api sandbox)"
        )


def _find_key(key_file: Path | None, env: Mapping[str, str], variable: str) -> tuple[str | None, tuple[str, ...]]:
    """The key from the file that was named, else from the variable, else from systemd's credentials."""
    named = key_file is not None
    if key_file is None and not env.get(variable) and (folder := env.get("CREDENTIALS_DIRECTORY")):
        credential = Path(folder) / variable.lower()
        key_file = credential if credential.is_file() else None
    if key_file is None:
        return env.get(variable), ()
    try:
        open_to_others = key_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        key = key_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key file {key_file} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not key.strip():
        raise UsageError(f"the key file {key_file} is empty")
    warning = f"the key file {key_file} can be read by others; chmod 600 {key_file}"
    # A credential's mode shows the mask of its access list, not who may read it.
    return key, (warning,) if named and open_to_others else ()
