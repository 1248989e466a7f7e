"""Colours of body-part groups and of people, the same in the annotated video and on the page."""

from clipmg_hf.timeline.records import Timeline


# Seen well on white and on the dark bar of the video; white text on them can be read. The gate's green and purple are
# left out.
_GROUP_COLORS = ("#3a7fc1", "#d9661c", "#b8457f", "#a87e1a", "#2b93b5", "#c84f4f", "#6b8e23", "#8c5a3c")
NO_GROUP_COLOR = "#7b8494"
# Bright, to be seen over a picture.
_PERSON_COLORS = ("#ff961e", "#28aaff", "#7ee081", "#ff6fb5", "#f5e050", "#b495ff")


def group_colors(timeline: Timeline) -> dict[str, str]:
    """Groups of the events, by their first class, and their colours as `#rrggbb`; grey for none."""
    first: dict[str, int] = {}
    for event in timeline.events:
        first[event.group] = min(event.label_id, first.get(event.group, event.label_id))
    names = [name for name in sorted(first, key=lambda name: first[name]) if name not in ("", "none")]
    colors = {name: _GROUP_COLORS[index % len(_GROUP_COLORS)] for index, name in enumerate(names)}
    return colors | {name: NO_GROUP_COLOR for name in ("none", "") if name in first}


def person_color(position: int) -> str:
    """Colour as `#rrggbb` of the person at `position` of a list."""
    return _PERSON_COLORS[position % len(_PERSON_COLORS)]


def to_rgb(color: str) -> tuple[int, int, int]:
    """`#rrggbb` as red, green and blue in [0, 255]."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


__all__ = ["NO_GROUP_COLOR", "group_colors", "person_color", "to_rgb"]
