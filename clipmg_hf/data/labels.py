"""Classes and body-part groups of the data sets; a group is the part or parts of the body that a class concerns."""

from itertools import chain, repeat

from clipmg_hf.modeling import IMIGUE_LABELS


# Group and number of consecutive classes: iMiGUE's and MA-52's are numbered group by group.
_IMIGUE_RUNS = (("head", 2), ("head-hand", 9), ("body-hand", 8), ("body", 2), ("hand", 6), ("head", 2), ("hand", 1))
IMIGUE_GROUPS: tuple[str, ...] = (*chain.from_iterable(repeat(*run) for run in _IMIGUE_RUNS), "body", "none")
IMIGUE_GROUP_NAMES = ("head", "head-hand", "body-hand", "body", "hand", "none")

SMG_LABELS: tuple[str, ...] = (
    "Turtling neck and shoulder",
    "Rubbing eyes and forehead",
    "Folding arms",
    "Touching or covering suprasternal notch",
    "Moving legs",
    "Touching or scratching neck",
    "Folding arms behind body",
    "Rubbing hands and crossing finger",
    "Arms akimbo",
    "Crossing legs",
    "Scratching some part of body",
    "Scratching or touching facial parts other than eyes",
    "Playing or adjusting hair",
    "Holding arms",
    "Pulling shirt collar",
    "Playing with jewelry, and manipulating other objects",
    "Illustrative hand gestures",
)
# SMG has no groups of its own; these follow iMiGUE's (our choice).
SMG_GROUPS: tuple[str, ...] = (
    *("body", "head-hand", "body-hand", "body-hand", "leg", "body-hand", "body-hand", "hand", "hand", "leg"),
    *("body-hand", "head-hand", "body-hand", "hand", "body-hand", "hand", "none"),
)
SMG_GROUP_NAMES = ("head-hand", "body-hand", "body", "hand", "leg", "none")

_MA52_RUNS = (
    *(("body", 5), ("head", 6), ("upper limb", 13), ("lower limb", 8), ("body-hand", 6), ("head-hand", 10)),
    ("leg-hand", 4),
)
MA52_GROUPS: tuple[str, ...] = tuple(chain.from_iterable(repeat(*run) for run in _MA52_RUNS))
MA52_GROUP_NAMES = tuple(name for name, _ in _MA52_RUNS)

assert len(IMIGUE_GROUPS) == len(IMIGUE_LABELS)
assert len(SMG_GROUPS) == len(SMG_LABELS)


__all__ = [
    "IMIGUE_GROUPS",
    "IMIGUE_GROUP_NAMES",
    "MA52_GROUPS",
    "MA52_GROUP_NAMES",
    "SMG_GROUPS",
    "SMG_GROUP_NAMES",
    "SMG_LABELS",
]
