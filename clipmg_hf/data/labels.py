"""Classes and body-part groups of the data sets; a group is the part or parts of the body that a class concerns.

[`check_labels`] compares the classes of data with those of a checkpoint.
"""

from collections.abc import Sequence
from itertools import chain, repeat

from clipmg_hf.data.discovery import shorten
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.modeling import IMIGUE_LABELS


# The class of clips without a gesture, see `clipmg_hf.data.background`; the last one of a data set that has it.
BACKGROUND_LABEL, BACKGROUND_GROUP = "Background", "none"
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


def known_groups(label_names: Sequence[str]) -> tuple[str, ...] | None:
    """Group of each class if all are iMiGUE's or all are SMG's, "Background" among them or not; `None` for others."""
    for names, groups in ((IMIGUE_LABELS, IMIGUE_GROUPS), (SMG_LABELS, SMG_GROUPS)):
        group_of = {**dict(zip(names, groups, strict=True)), BACKGROUND_LABEL: BACKGROUND_GROUP}
        if group_of.keys() >= set(label_names):
            return tuple(group_of[name] for name in label_names)
    return None


def check_labels(data_names: Sequence[str], checkpoint_names: Sequence[str], checkpoint: str) -> None:
    """Compare the classes of data and of a checkpoint, and their order.

    Args:
        data_names, checkpoint_names (`Sequence[str]`): Names of the classes.
        checkpoint (`str`): What the message calls it.

    Raises:
        DatasetFormatError: They differ; the message names how.
    """
    if list(data_names) == list(checkpoint_names):
        return
    if sorted(data_names) == sorted(checkpoint_names):
        pairs = enumerate(zip(checkpoint_names, data_names, strict=True))
        moved = [f"class {index} is {theirs!r} and {ours!r}" for index, (theirs, ours) in pairs if theirs != ours]
        raise DatasetFormatError(
            f"{checkpoint} has the classes of the data in another order: {shorten(moved)}; expected the same order."
        )
    only_data, only_checkpoint = (
        shorten([repr(name) for name in names if name not in others]) or "none"
        for names, others in ((data_names, checkpoint_names), (checkpoint_names, data_names))
    )
    hint = ""
    if list(checkpoint_names) == [*data_names, BACKGROUND_LABEL]:
        hint = f" Clips of the class {BACKGROUND_LABEL!r} come with background_share."
    raise DatasetFormatError(
        f"{checkpoint} has {len(checkpoint_names)} classes, the data {len(data_names)}; only in the data: "
        f"{only_data}; only in the checkpoint: {only_checkpoint}. Expected the classes that it was trained on.{hint}"
    )


__all__ = [
    "BACKGROUND_GROUP",
    "BACKGROUND_LABEL",
    "IMIGUE_GROUPS",
    "IMIGUE_GROUP_NAMES",
    "MA52_GROUPS",
    "MA52_GROUP_NAMES",
    "SMG_GROUPS",
    "SMG_GROUP_NAMES",
    "SMG_LABELS",
    "check_labels",
    "known_groups",
]
