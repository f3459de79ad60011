"""Wiring: what was said on the command line or by a program becomes a run, a plan or a look at a folder."""

from batchgen.runner.check import Check, check
from batchgen.runner.conduct import run
from batchgen.runner.context import Voice
from batchgen.runner.look import Status, status
from batchgen.runner.session import Session, default_output, open_session

__all__ = ["Check", "Session", "Status", "Voice", "check", "default_output", "open_session", "run", "status"]
