"""What a plain scalar means by YAML 1.2's core schema, in YAML and in the cells of a table. Knows no documents.

PyYAML does not decide it, because its YAML 1.1 turns `16:9` into 969 and `no` into False.
"""

from __future__ import annotations

import math
import re

MAX_DEPTH = 100

_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 400


def resolve(scalar: str) -> bool | int | float | str | None:
    """What a plain scalar means in YAML 1.2's core schema: null, true and false, numbers, else the text itself.

    >>> [resolve(s) for s in ("010", "0x10", "1e3", "16:9", "no")]
    [10, 16, 1000.0, '16:9', 'no']
    """
    if scalar in _CONSTANTS:
        return _CONSTANTS[scalar]
    if _INT.fullmatch(scalar):
        if len(scalar) > _MAX_DIGITS:  # no float either, and Python refuses to print such an int
            return -math.inf if scalar[0] == "-" else math.inf
        return int(scalar) if scalar[1:2] not in ("o", "x") else int(scalar, 0)
    if _FLOAT.fullmatch(scalar):
        return float(scalar)
    if _SPECIAL.fullmatch(scalar):
        return float(scalar.replace(".", ""))
    return scalar
