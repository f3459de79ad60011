"""The image API's local stand-in that ships with batchgen: real HTTP, real pictures, scripted faults.

Whatever needs no server (the Script, the faults' names) is in `script`; nothing here is used against the real API.
"""

from batchgen.sandbox.catalog import IMAGE_PRICES_USD
from batchgen.sandbox.ledger import Ledger, digest
from batchgen.sandbox.script import FAULT_KINDS, SANDBOX_KEY, Fault, Script, parse_fault
from batchgen.sandbox.server import Sandbox

__all__ = [
    "FAULT_KINDS",
    "IMAGE_PRICES_USD",
    "SANDBOX_KEY",
    "Fault",
    "Ledger",
    "Sandbox",
    "Script",
    "digest",
    "parse_fault",
]
