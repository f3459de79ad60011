"""The names of things in an output folder, relative to it. Names only: nothing here looks whether they are there."""

from __future__ import annotations

LOG = "log.jsonl"
SUMMARY = "summary.json"
IMAGES = "images"
REPORT = "report.html"
THUMBS = "thumbs"
SUPERSEDED = "superseded"
PRIVATE = ".batchgen"
ATTEMPTS = f"{PRIVATE}/attempts.jsonl"
STATE = f"{PRIVATE}/state.json"
PACE = f"{PRIVATE}/pace.jsonl"
TMP = f"{PRIVATE}/tmp"
QUARANTINE = f"{PRIVATE}/quarantine"
FOREIGN_FINGERPRINT = "00000000"


def picture_file(job: str, position: int, index: int, extension: str) -> str:
    """The name of a job's picture; further ones of the same answer carry their index after `~`, illegal in ids."""
    return f"{IMAGES}/{job}{f'~{index}' if position else ''}.{extension}"


def superseded(file: str, fingerprint: str, sha256: str) -> str:
    """The name of a picture once another has taken its place: `superseded/<id>~<fp8>~<sha8>.<ext>`."""
    stem, dot, extension = file.removeprefix(f"{IMAGES}/").rpartition(".")
    return f"{SUPERSEDED}/{stem}~{fingerprint[:8]}~{sha256[:8]}{dot}{extension}"
