"""What people call the parts of their data: features, labels, subjects, training and test; and what is missing."""

from __future__ import annotations

import re

ROLES = {
    "features": r"x|features?|data|inputs?|images?|samples?",
    "label": r"y|labels?|targets?|classes|activity|activities",
    "subject": r"subjects?|persons?|people|participants?|users?",
}
# What stands for a value that is missing.
ABSENT = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "?", "-")
_PARTS = {"train": "train(?:ing)?", "validation": "valid(?:ation)?|val|dev", "test": "test(?:ing)?"}
_ANY = "|".join(_PARTS.values())
# A word by itself, or one with a capital within a name: `x_train`, `train1`, `exoTrain`, `testing-set`; not `latest`.
_WORD = re.compile(
    rf"(?:(?<![a-zA-Z])(?i:{_ANY})|(?:{re.sub('(^|[|])(.)', lambda m: m[1] + m[2].upper(), _ANY)}))(?![a-z])"
)


def part_of(name: str) -> str | None:
    """The part of the split that a name says: `train`, `validation` or `test`; None if none, or several."""
    said = {part for word in _WORD.findall(name) for part, names in _PARTS.items() if re.fullmatch(names, word.lower())}
    return said.pop() if len(said) == 1 else None


def is_part(name: str) -> bool:
    """Whether a name is nothing but that of a part."""
    return any(re.fullmatch(names, name.lower()) for names in _PARTS.values())


def role_of(name: str) -> str | None:
    """Which of `ROLES` a name stands for, with or without the part of the split that it belongs to."""
    plain = _WORD.sub("", name).strip("-_ ")
    return next((role for role, names in ROLES.items() if re.fullmatch(names, plain, re.IGNORECASE)), None)
