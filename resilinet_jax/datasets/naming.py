"""What people call the parts of their data: features, labels, subjects, training and test."""

from __future__ import annotations

import re

ROLES = {
    "features": r"x|features?|data|inputs?|images?|samples?",
    "label": r"y|labels?|targets?|classes|activity|activities",
    "subject": r"subjects?|persons?|people|participants?|users?",
}
_TEST = {False: r"train(ing)?|valid(ation)?|val|dev", True: r"test(ing)?"}
_ANY = "|".join(_TEST.values())


def role_of(name: str) -> str | None:
    """Which of `ROLES` a name stands for, with or without the part of the split that it belongs to."""
    plain = re.sub(rf"^({_ANY})[-_ ]|[-_ ]({_ANY})$", "", name, flags=re.IGNORECASE)
    return next((role for role, names in ROLES.items() if re.fullmatch(names, plain, re.IGNORECASE)), None)


def is_test(name: str) -> bool | None:
    """Whether a name says that it is of the test data, or of those for training and validation; None if neither."""
    for test, names in _TEST.items():
        if re.fullmatch(rf"(.*[-_ ])?({names})|({names})[-_ ].*", name, re.IGNORECASE):
            return test
    return None
