"""Timelines for ELAN: annotation documents of the ELAN Annotation Format 3.0.

A person has a tier of labels, linked to the vocabulary of the classes, and one tier each below it for group, score
and gate where events have them. Annotations of a tier may not overlap: further ones of a person are in further tiers.
The video is looked for beside the file.
"""

import mimetypes
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime

from clipmg_hf.timeline.records import Event, Timeline
from clipmg_hf.timeline.spans import Tier, make_tiers, one_line


SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
VOCABULARY = "micro-gestures"
_LABEL_TYPE, _DETAIL_TYPE = "micro-gesture", "detail"
_STEREOTYPE = "Symbolic_Association"
_LANGUAGE = "und"


def _describe_event(timeline: Timeline) -> dict[str, Callable[[Event], str]]:
    """What tiers below the labels hold, by their names."""
    details: dict[str, Callable[[Event], str]] = {"score": lambda event: f"{event.score:.2f}"}
    if any(event.group for event in timeline.events):
        details["group"] = lambda event: one_line(event.group)
    if any(event.gate is not None for event in timeline.events):
        details["gate"] = lambda event: "" if event.gate is None else f"{event.gate:.2f}"
    return details


class _Document:
    """Tiers and their time slots; annotations are numbered from 1."""

    def __init__(self, cve_ids: dict[str, str]):
        self.tiers: list[ET.Element] = []
        self.slots: list[tuple[int, str]] = []
        self.num_annotations = 0
        self.cve_ids = cve_ids

    def add_tier(self, name: str, person: str, kind: str, parent: dict[str, str]) -> ET.Element:
        attributes = {"TIER_ID": name, "PARTICIPANT": person, "LINGUISTIC_TYPE_REF": kind, **parent}
        self.tiers.append(ET.Element("TIER", attributes))
        return self.tiers[-1]

    def add_slot(self, milliseconds: int) -> str:
        name = f"ts{len(self.slots) + 1}"
        self.slots.append((milliseconds, name))
        return name

    def add_annotation(self, tier: ET.Element, kind: str, value: str, attributes: dict[str, str]) -> str:
        self.num_annotations += 1
        name = f"a{self.num_annotations}"
        element = ET.SubElement(ET.SubElement(tier, "ANNOTATION"), kind, {"ANNOTATION_ID": name, **attributes})
        ET.SubElement(element, "ANNOTATION_VALUE").text = value
        return name

    def add_events(self, tier: Tier, details: dict[str, Callable[[Event], str]]) -> None:
        """A tier of labels, and a tier below it for each detail."""
        labels = self.add_tier(tier.name, tier.person, _LABEL_TYPE, {})
        parent = {"PARENT_REF": tier.name}
        below = {name: self.add_tier(f"{tier.name} {name}", tier.person, _DETAIL_TYPE, parent) for name in details}
        for span in tier.spans:
            label = one_line(span.event.label)
            attributes = {"TIME_SLOT_REF1": self.add_slot(span.start), "TIME_SLOT_REF2": self.add_slot(span.end)}
            if label in self.cve_ids:
                attributes["CVE_REF"] = self.cve_ids[label]
            annotation = self.add_annotation(labels, "ALIGNABLE_ANNOTATION", label, attributes)
            for name, describe in details.items():
                value = describe(span.event)
                self.add_annotation(below[name], "REF_ANNOTATION", value, {"ANNOTATION_REF": annotation})


def _make_header(video: str, num_annotations: int) -> ET.Element:
    header = ET.Element("HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    url = one_line(video) if video.startswith("../") else f"./{one_line(video)}"
    kind = mimetypes.guess_type(video)[0] or ""
    kind = kind if kind.startswith("video/") else "unknown"
    ET.SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": url, "MIME_TYPE": kind, "RELATIVE_MEDIA_URL": url})
    # ELAN numbers new annotations from here on.
    ET.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}).text = str(num_annotations)
    return header


def _make_types(cve_ids: dict[str, str]) -> list[ET.Element]:
    """Types of tiers, the language of the vocabulary, what ties details to labels, and the vocabulary."""
    label_type = {"LINGUISTIC_TYPE_ID": _LABEL_TYPE, "TIME_ALIGNABLE": "true", "GRAPHIC_REFERENCES": "false"}
    label_type["CONTROLLED_VOCABULARY_REF"] = VOCABULARY
    detail_type = {"LINGUISTIC_TYPE_ID": _DETAIL_TYPE, "TIME_ALIGNABLE": "false", "GRAPHIC_REFERENCES": "false"}
    detail_type["CONSTRAINTS"] = _STEREOTYPE
    vocabulary = ET.Element("CONTROLLED_VOCABULARY", {"CV_ID": VOCABULARY})
    ET.SubElement(vocabulary, "DESCRIPTION", {"LANG_REF": _LANGUAGE}).text = "Classes of the model"
    for label, cve_id in cve_ids.items():
        entry = ET.SubElement(vocabulary, "CV_ENTRY_ML", {"CVE_ID": cve_id})
        ET.SubElement(entry, "CVE_VALUE", {"LANG_REF": _LANGUAGE}).text = label
    return [
        ET.Element("LINGUISTIC_TYPE", label_type),
        ET.Element("LINGUISTIC_TYPE", detail_type),
        ET.Element("LANGUAGE", {"LANG_ID": _LANGUAGE, "LANG_LABEL": "undetermined (und)"}),
        ET.Element(
            "CONSTRAINT", {"STEREOTYPE": _STEREOTYPE, "DESCRIPTION": "1-1 association with a parent annotation"}
        ),
        vocabulary,
    ]


def render_elan(timeline: Timeline, video: str | None = None) -> str:
    """The annotation document of a timeline, times in milliseconds; `video` is the path from the file to the video."""
    labels = dict.fromkeys(one_line(label) for label in timeline.labels)
    document = _Document({label: f"cve{i}" for i, label in enumerate(labels)})
    details = _describe_event(timeline)
    for tier in make_tiers(timeline):
        document.add_events(tier, details)
    time_order = ET.Element("TIME_ORDER")
    for milliseconds, name in sorted(document.slots, key=lambda slot: slot[0]):
        ET.SubElement(time_order, "TIME_SLOT", {"TIME_SLOT_ID": name, "TIME_VALUE": str(milliseconds)})
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "clipmg",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    root.append(_make_header(video or timeline.video, document.num_annotations))
    root.append(time_order)
    root.extend(document.tiers)
    root.extend(_make_types(document.cve_ids))
    ET.indent(root, "    ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


__all__ = ["VOCABULARY", "render_elan"]
