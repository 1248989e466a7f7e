"""The rules that choose the subject of a video, as in `clipmg_hf.pose.subjects`; imports nothing that is heavy."""

import math


Box = tuple[float, float, float, float]
SubjectRule = str | int | Box

RULES = ("largest", "most_central", "longest", "all")


def parse_subject_rule(text: str) -> SubjectRule:
    """Read a rule as it stands on a command line.

    Args:
        text (`str`): "largest", "most_central", "longest", "all", "index:1" or "box:10,20,300,400".

    Raises:
        ValueError: Anything else.
    """
    kind, _, value = text.strip().partition(":")
    if not value and kind in RULES:
        return kind
    expected = f"expected {', '.join(RULES)}, index:NUMBER or box:LEFT,TOP,RIGHT,BOTTOM in pixels"
    try:
        if kind == "index":
            return check_subject_rule(int(value))
        if kind == "box":
            left, top, right, bottom = map(float, value.split(","))
            return check_subject_rule((left, top, right, bottom))
    except ValueError as error:
        raise ValueError(f"Subject {text!r}: {error}; {expected}.") from error
    raise ValueError(f"Subject {text!r}: {expected}.")


def check_subject_rule(rule: SubjectRule) -> SubjectRule:
    """Return the rule if it is one of those of the module.

    Raises:
        ValueError: It is not; names the value.
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise ValueError(f"the rule is {rule!r}, not one of {', '.join(RULES)}, an index or a box")
    elif isinstance(rule, tuple | list):
        if len(rule) != 4 or not all(map(math.isfinite, rule)):
            raise ValueError(f"the box is {rule}, not four finite numbers left, top, right, bottom")
        if not (rule[0] < rule[2] and rule[1] < rule[3]):
            raise ValueError(f"the box is {rule}, whose right or bottom is not above its left or top")
    elif isinstance(rule, bool) or not isinstance(rule, int) or rule < 0:
        raise ValueError(f"the index is {rule!r}, not an integer from 0")
    return rule


__all__ = ["RULES", "Box", "SubjectRule", "check_subject_rule", "parse_subject_rule"]
