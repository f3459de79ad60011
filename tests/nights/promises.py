"""The promises of DESIGN.md section 1 and the contract of reliability.md, checked against the server's ledger.

Each check answers with what is broken. What the program says of itself is believed nowhere: pictures are read from the
disk, requests and what was paid from the server.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchgen.failures import LIFETIME_DOUBTS, LIFETIME_RETRIES
from batchgen.layout import Books
from batchgen.model import ExitCode, FolderBusy
from nights.server import FOR_GOOD, HABITS, Request, prompt_kind, prompt_of

if TYPE_CHECKING:
    from nights.stage import Played, Story

LOG = "log.jsonl"
ATTEMPTS = ".batchgen/attempts.jsonl"
_QUOTA = {"day spent", "day spent, by 200"}
_OUTAGES = {name for name, habit in HABITS.items() if name not in FOR_GOOD | _QUOTA}


@dataclass(frozen=True)
class Before:
    """How things stood when an execution began: the prompts that were done, with their pictures in place or aside."""

    done: frozenset[str]


def entries(story: Story) -> list[dict[str, Any]]:
    """The lines of all logs as they are on the disk, log by log; a torn last one is left out."""
    return [json.loads(line) for path in _named(story, "", "log") for line in _whole_lines(story, path)]


def _named(story: Story, folder: str, stem: str) -> list[str]:
    """The files of this kind of all who wrote: of runs of everything, and of shards."""
    name = re.compile(rf"{re.escape(folder)}{stem}(-\d+-of-\d+)?\.jsonl")
    return sorted(path for path in story.disk.names if name.fullmatch(path))


def _whole_lines(story: Story, path: str) -> list[bytes]:
    whole = bytes(story.disk.names[path].data).rpartition(b"\n")[0]
    return [line for line in whole.split(b"\n") if line]


def pictures(story: Story, *folders: str) -> dict[str, bytes]:
    """The pictures that are there, where they belong: on the disk or in the store."""
    if story.scenario.in_store:
        return {path: data for folder in folders for path, data in story.bucket.below(folder).items()}
    return {path: bytes(story.disk.names[path].data) for folder in folders for path in story.disk.below(folder)}


def _digests(story: Story) -> set[str]:
    return {hashlib.sha256(data).hexdigest() for data in pictures(story, "images", "superseded").values()}


def _torn(story: Story) -> bool:
    """Whether the log's end is damaged, which only its next writer mends."""
    try:
        entries(story)
    except ValueError:
        return True
    return False


def before(story: Story) -> Before:
    if _torn(story):
        return Before(frozenset())
    there = _digests(story)
    return Before(
        frozenset(
            entry["request"]["prompt"]
            for entry in entries(story)
            if entry["outcome"] == "done" and all(picture["sha256"] in there for picture in entry["images"])
        )
    )


def after(story: Story, group: list[Played], before: Before) -> list[str]:
    """What an execution, or shards beside each other, have broken."""
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _whole_pictures(story),
        lambda: _nothing_lost(story),
        lambda: _never_twice(story, group, before),
        *(partial(check, story, played) for played in group for check in (_limits, _pauses, _obeys, _truthful)),
        lambda: _kept(story, group),
        *(partial(_copied, story, played) for played in group if story.scenario.in_store),
        lambda: _on_record(story),
        lambda: _rationed(story),
    ]
    if _torn(story) and not any(played.power_cut for played in group):
        return ["log: damaged before its end without a power cut"]
    return [problem for check in checks for problem in check()] if not _torn(story) else []


def at_last(story: Story) -> list[str]:
    """What must hold when all has been well for a while."""
    last = story.played[-1]
    if not last.summary or last.summary.pending:
        return [f"no job lost: after {len(story.played)} executions work is left ({_last_words(last)})"]
    return [*_outcomes(story), *_every_picture_has_an_entry(story)]


def _last_words(last: Played) -> str:
    return last.summary.verdict if last.summary else str(last.error)


def _whole_pictures(story: Story) -> Iterator[str]:
    for path, data in pictures(story, "images").items():
        prompt, name = prompt_of(data), path.removeprefix("images/").removesuffix(".png")
        if not prompt:
            yield f"whole pictures: {path} is none ({len(data)} bytes)"
        elif not prompt.startswith(f"{name} v"):
            yield f"whole pictures: {path} shows {prompt!r}"
    for entry in entries(story):
        if (entry["outcome"] == "done") != bool(entry["images"]):
            yield f"a line is proof: {entry['job']} is {entry['outcome']} with {len(entry['images'])} pictures"


def _nothing_lost(story: Story) -> Iterator[str]:
    there = _digests(story)
    for entry in entries(story):
        for picture in entry["images"]:
            if picture["sha256"] not in there:
                yield f"a line is proof: the picture of {entry['job']} ({entry['request']['prompt']}) is nowhere"


def _never_twice(story: Story, group: list[Played], before: Before) -> Iterator[str]:
    had: dict[str, float] = {}
    for request in story.server.ledger:
        if request.start not in {played.number for played in group}:
            continue
        if request.prompt in before.done:
            yield f"never twice: {request.prompt} was done before execution {request.start} and is asked for again"
        elif request.prompt in had and request.at_s >= had[request.prompt]:
            yield f"never twice: {request.prompt} had come at {had[request.prompt]:.2f} s and is asked for again"
        if request.delivered:
            had[request.prompt] = request.ended_s


def _kept(story: Story, group: list[Played]) -> Iterator[str]:
    """What had come when only the store failed is not bought again."""
    numbers = {played.number for played in group}
    spared = {played.number for played in story.played if _only_the_store_failed(story, played)} - numbers
    had = {r.prompt for r in story.server.ledger if r.delivered and r.start in spared}
    for request in story.server.ledger:
        if request.start in numbers and request.prompt in had:
            yield f"kept: {request.prompt} had come before the store failed and is asked for again"


def _only_the_store_failed(story: Story, played: Played) -> bool:
    disk_failed = played.process.struck or story.scenario.capacity_bytes < 1 << 30
    aborted = len(played.start.signals) > 1
    return story.scenario.in_store and _storage_failed(played) and not (disk_failed or aborted or played.killed)


def _limits(story: Story, played: Played) -> Iterator[str]:
    flags, came = played.flags, [r for r in story.server.ledger if r.received]
    if played.most_in_flight > played.concurrency:
        yield f"limits: {played.most_in_flight} requests in flight"
    if flags.get("requests_per_minute") and any(
        r.habit == "too fast" and not _scripted(story, r, "too fast") for r in _of(story, played)
    ):
        yield "limits: the server saw more requests in a minute than agreed"
    lost = sum(p.power_cut for p in story.played) * played.concurrency * len(story.scenario.endpoints)
    if (most := flags.get("max_requests")) is not None and len(came) > most + lost:
        yield f"limits: {len(came)} requests, allowed were {most}"
    paid = sum(r.paid for r in came)
    if (dollars := flags.get("max_cost_usd")) is not None and paid * 0.01 > dollars + lost * 0.01 + 1e-9:
        yield f"limits: {paid} paid pictures cost more than ${dollars}"
    if flags.get("requests_per_day") and not _odd_clocks(story):
        by_day = Counter((r.endpoint, story.server.utc(r.at_s).date()) for r in came)
        if max(by_day.values(), default=0) > flags["requests_per_day"] + lost:
            yield f"limits: {by_day} requests a day"


def _odd_clocks(story: Story) -> bool:
    return any(p.start.steps or p.start.sleeps for p in story.played) or bool(story.skew)


def _scripted(story: Story, request: Request, habit: str) -> bool:
    return any(e.habit == habit and e.holds(request.at_s, request.endpoint) for e in story.scenario.episodes)


def _pauses(story: Story, played: Played) -> Iterator[str]:
    """An outage, a spent day or a refused account costs its endpoint a few requests, not the manifest."""
    for endpoint in story.scenario.endpoints:
        yield from _pauses_at(endpoint, story, played)


def _pauses_at(endpoint: str, story: Story, played: Played) -> Iterator[str]:
    asked, concurrency = [r for r in _of(story, played) if r.endpoint == endpoint], played.concurrency
    for name in ("bad key", "no balance"):
        if refused := [r for r in asked if r.habit == name]:
            late = [r for r in asked if r.at_s > refused[0].ended_s]
            if late:
                yield f"refused account: {len(late)} requests after {name!r} was known"
    quota = [r for r in asked if r.habit in _QUOTA]
    if quota and not _odd_clocks(story):
        today = story.server.utc(quota[0].ended_s).date()
        late = [r for r in asked if r.at_s > quota[0].ended_s and story.server.utc(r.at_s).date() == today]
        # An answer with status 200 is read by the writer, which a slow disk may keep busy.
        unread = played.concurrency if quota[0].habit == "day spent, by 200" and story.scenario.sync_s else 0
        if len(late) > unread:
            yield f"spent day: {len(late)} requests after it was known"
    for first in [r for r in asked if r.habit == "too fast" and r.asked.isdigit()]:
        early = [r for r in asked if first.ended_s < r.at_s < first.ended_s + int(first.asked)]
        if early:
            yield f"pauses: {len(early)} requests within {first.asked} s of being told to wait so long"
    for episode in story.scenario.episodes:
        if episode.share == 1 and episode.habit in _OUTAGES:
            during = [r for r in asked if r.habit == episode.habit and episode.from_s <= r.at_s < episode.to_s]
            span_s = max(0.0, min(episode.to_s, played.ended_s) - max(episode.from_s, played.began_s))
            most = 2 * max(5, concurrency) + span_s / 30 + 8
            if len(during) > most:
                yield f"outage: {len(during)} requests met {episode.habit!r}"


def _obeys(story: Story, played: Played) -> Iterator[str]:
    asked = _of(story, played)
    if played.signalled_s is not None and any(r.at_s > played.signalled_s for r in asked):
        yield "signals: a request left after SIGTERM"
    runtime_s = played.flags.get("max_runtime_s")
    if runtime_s and any(r.at_s > played.began_s + runtime_s for r in asked):
        yield "limits: a request left after the time was up"
    for rival in played.rivals:
        if not isinstance(rival, FolderBusy):
            yield f"single writer: a rival start ended with {rival!r}"


def _truthful(story: Story, played: Played) -> Iterator[str]:
    summary, code = played.summary, played.exit_code
    if played.error and code is ExitCode.INTERNAL:
        yield f"exit code: {played.error!r}"
    if summary is None:
        return
    if code is ExitCode.INTERNAL:
        yield f"exit code: an unexpected error ({summary.verdict})"
    last: dict[str, str] = {}
    for entry in entries(story):
        if entry["request"]["prompt"] == played.jobs.get(entry["job"]) and last.get(entry["job"]) != "done":
            last[entry["job"]] = entry["outcome"]
    found = Counter(last.values())
    said = Counter(done=summary.done, failed=summary.failed, uncertain=summary.uncertain)
    if +found != +said and not _storage_failed(played):
        yield f"exit code: the summary says {dict(said)}, the log {dict(found)}"
    if summary.done + summary.failed + summary.uncertain + summary.pending != len(played.jobs):
        yield "exit code: the summary's numbers do not add up"
    whole = summary.done == len(played.jobs)
    if (code is ExitCode.OK and not whole) or (whole and code in (ExitCode.INCOMPLETE, ExitCode.WORK_LEFT)):
        yield f"exit code: {code} with {summary.done} of {len(played.jobs)} done"


def _storage_failed(played: Played) -> bool:
    return played.exit_code is ExitCode.STORAGE


def _copied(story: Story, played: Played) -> Iterator[str]:
    """With a store the folder holds no pictures, and after a clean end without trouble the store has the log."""
    for path in (*story.disk.below("images"), *story.disk.below("superseded")):
        yield f"store: {path} lies in the folder"
    books = Books(played.shard)
    met = any(played.began_s <= at_s <= played.ended_s for at_s, _ in story.bucket.met)
    if played.summary and not met and played.exit_code in (ExitCode.OK, ExitCode.INCOMPLETE):
        for path in (books.log, books.summary):
            node, copy = story.disk.names.get(path), story.bucket.held.get(path, (b"", {}))[0]
            if node is not None and bytes(node.data) != copy:
                yield f"store: the copy of {path} is not up to date"


def _on_record(story: Story) -> Iterator[str]:
    """Every request has its attempt in the log or in the attempts file, but for a last group that a power cut took:
    of each job the last attempt, and those that surely cost nothing."""
    recorded: Counter[str] = Counter()
    seen: set[tuple[str, str, int]] = set()
    prompts: dict[tuple[str, str], str] = {}
    for entry in entries(story):
        prompts[entry["job"], entry["fingerprint"]] = entry["request"]["prompt"]
        for attempt in entry["attempts"]:
            seen.add((entry["job"], entry["fingerprint"], attempt["n"]))
    for line in (line for path in _named(story, ".batchgen/", "attempts") for line in _whole_lines(story, path)):
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if note["type"] == "prepared":
            continue
        n = note["n"] if note["type"] == "intent" else note["attempt"]["n"]
        seen.add((note["job"], note["fingerprint"], n))
    for job, _, _ in seen:
        recorded[job] += 1
    cut = {played.number for played in story.played if played.power_cut}
    must = [r for r in story.server.ledger if r.paid or r.start not in cut]
    asked = Counter(r.prompt.partition(" v")[0] for r in must)
    cuts = Counter(name for name, _ in {(r.prompt.partition(" v")[0], r.start) for r in must if r.start in cut})
    for name, count in asked.items():
        if recorded[name] < count - cuts[name]:
            yield f"on record: {count} requests for {name}, {recorded[name]} attempts on record"


def _rationed(story: Story) -> Iterator[str]:
    """What was paid for a picture in vain is bounded: the ration, doubts at crashes, and what looks like an outage."""
    ration = 1 + story.scenario.flag("uncertain_retries", 1)
    for prompt, requests in _by_prompt(story).items():
        paid = [r for r in requests if r.paid]
        crashed = [r for r in paid if _in_doubt(story, r)]
        free = [r for r in paid if r not in crashed and (_may_be_probe(story, r) or _nobody_succeeded(story, r))]
        forgotten = len({r.start for r in requests if story.played[r.start - 1].power_cut})
        most = 1 + ration + min(len(crashed), LIFETIME_DOUBTS + 1) + len(free) + forgotten
        if len(paid) > most:
            yield f"rationed: {len(paid)} paid pictures of {prompt}, at most {most} were to be risked"


def _in_doubt(story: Story, request: Request) -> bool:
    """Whether the process could not put on record how the request ended."""
    played = next((p for p in story.played if p.number == request.start), None)
    if played is None:
        return True
    aborted = len(played.start.signals) > 1 and played.signalled_s is not None
    return (played.killed or _storage_failed(played) or aborted) and request.ended_s >= played.ended_s - 700


def _may_be_probe(story: Story, request: Request) -> bool:
    played = story.played[request.start - 1]
    there = [r for r in _of(story, played) if r.endpoint == request.endpoint]
    ended = sorted((r.ended_s, r.delivered) for r in there if r.ended_s <= request.at_s)
    threshold = max(5, played.concurrency)
    recent = [delivered for _, delivered in ended[-threshold:]]
    return len(recent) == threshold and not any(recent)


def _nobody_succeeded(story: Story, request: Request) -> bool:
    """Whether the job's try before this one is believed to have failed by the server: no other succeeded meanwhile."""
    mine = [r for r in story.server.ledger if r.start == request.start]
    earlier = [r for r in mine if r.prompt == request.prompt and r.at_s < request.at_s]
    return bool(earlier) and not any(r.delivered and earlier[-1].at_s <= r.ended_s <= request.at_s for r in mine)


def _outcomes(story: Story) -> Iterator[str]:
    """Only what is refused for good fails, only what was unknown too often is uncertain; all others are done."""
    best: dict[str, str] = {}
    for entry in entries(story):
        prompt = entry["request"]["prompt"]
        if prompt == story.jobs.get(entry["job"]) and best.get(prompt) != "done":
            best[prompt] = entry["outcome"]
    asked = _by_prompt(story)
    for prompt in story.jobs.values():
        requests, outcome = asked.get(prompt, []), best.get(prompt)
        habits = Counter(r.habit for r in requests)
        doubts = sum(_in_doubt(story, r) for r in requests)
        if outcome is None:
            yield f"no job lost: {prompt} has no entry"
        elif outcome == "done" and prompt_kind(prompt):
            yield f"no job lost: {prompt} is done, though the server never drew it"
        elif outcome == "failed" and not (FOR_GOOD & set(habits)) and len(requests) <= LIFETIME_RETRIES:
            yield f"no job lost: {prompt} has failed after {dict(habits)}"
        elif outcome == "uncertain" and not _doubtful(story, habits, doubts):
            yield f"no job lost: {prompt} is uncertain after {dict(habits)} and {doubts} crashes"


def _doubtful(story: Story, habits: Counter[str], doubts: int) -> bool:
    unknown = sum(n for name, n in habits.items() if name in _OUTAGES | {"too slow"})
    least = min(p.flags.get("uncertain_retries", 1) for p in story.played)
    return unknown > least or doubts > LIFETIME_DOUBTS


def _every_picture_has_an_entry(story: Story) -> Iterator[str]:
    known = {picture["sha256"] for entry in entries(story) for picture in entry["images"]}
    for path, data in pictures(story, "images").items():
        if hashlib.sha256(data).hexdigest() not in known and path.removeprefix("images/")[:-4] in story.jobs:
            yield f"a line is proof: {path} has no entry"


def _of(story: Story, played: Played) -> list[Request]:
    return [r for r in story.server.ledger if r.start == played.number]


def _by_prompt(story: Story) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = defaultdict(list)
    for request in story.server.ledger:
        if request.received:
            found[request.prompt].append(request)
    return found
