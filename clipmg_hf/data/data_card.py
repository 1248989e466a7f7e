"""The data set card of a prepared folder, README.md: only facts of its manifest.

    text = data_card(read_manifest("prepared"), "owner/name")

Its head also tells `datasets` which columns there are and how many rows. Both storages load without torchcodec, from a
folder and from the Hub, because the head declares the videos as bytes that are not decoded.
"""

from html import escape
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from clipmg_hf.data.prepared_folder import ARRAY_COLUMNS, EXTENSIONS
from clipmg_hf.data.schema import PERSONAL_COLUMNS
from clipmg_hf.text import markdown_table


TITLES = {"imigue": "iMiGUE", "smg": "SMG", "ma52": "MA-52"}
REFERENCES = {
    "imigue": "Liu et al., *iMiGUE: An Identity-free Video Dataset for Micro-Gesture Understanding and Emotion "
    "Analysis*, CVPR 2021, [arXiv 2107.00285](https://arxiv.org/abs/2107.00285).",
    "smg": "Chen et al., *SMG: A Micro-gesture Dataset Towards Spontaneous Body Gestures for Emotional Stress State "
    "Analysis*, IJCV 131, 2023.",
    "ma52": "Guo et al., *Benchmarking Micro-action Recognition: Dataset, Methods, and Applications*, IEEE TCSVT, "
    "2024, [arXiv 2403.05234](https://arxiv.org/abs/2403.05234).",
}
SIZE_CATEGORIES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST_CATEGORY = "1M<n<10M"
MEANINGS = {
    "clip_id": "unique in the data set",
    "video_id": "the untrimmed video",
    "start_frame": "first frame of the clip in the untrimmed video, from 0",
    "end_frame": "last frame, included",
    "fps": "frames per second",
    "label": "class of the gesture; -1 where the files hide it",
    "group": "part of the body that the class concerns; -1 where the label is",
    "subject": "number of the person, where the files have it",
    "emotion": "whether the match was lost or won, where the files have it",
    "gender": "personal data, as the files have it",
    "nationality": "personal data, as the files have it",
    "width": "of the stored frames, in pixels",
    "height": "of the stored frames, in pixels",
    "video": "the clip as an MP4 file, without sound",
    "video_start_frame": "frame of the untrimmed video that the file's first frame shows",
    "keypoints": "x, y in pixels of the stored frames, and confidence: (frames, keypoints, 3); missing points are 0",
    "keypoints_valid": "which points are there: (frames, keypoints)",
    "keypoint_layout": "name and order of the keypoints",
    "crop": "left, top, width, height in pixels of the source frames: what the stored frames show",
}
PRIVATE_NOTICE = """
**Licensed data: keep it private.** These files are cut out of recordings of people that were handed out under an
agreement. They may not be published or passed on, neither whole nor in part. A private repository that others can read
passes them on, too.
"""
PUBLIC_NOTICE = """
**Licensed data.** These files are cut out of recordings of people that are handed out under an agreement. Who
published them here declared to be allowed to. That you can read them does not give you a licence: get one from those
who made the data set before you use them.
"""
CONSENT = """
The clips show people who can be recognised. Use them for nothing that these people have not agreed to: not to find out
who somebody is, and for no decision about a person. A gesture is no proof of a feeling, a thought or an intention.
"""
MANIFEST_SENTENCE = (
    "`manifest.json` holds this, the classes and the digest of every file; `hub_scripts/prepare_dataset.py --verify` "
    "compares them."
)


def data_card(manifest: dict[str, Any], repo_id: str | None = None, *, is_public: bool = False) -> str:
    """The text of README.md.

    Args:
        manifest (`dict`): The contents of `manifest.json`.
        repo_id (`str`, *optional*): Where the folder is pushed to; without, the text speaks of a folder.
        is_public (`bool`, defaults to `False`): Whether everybody can read the repository.
    """
    name = manifest["source"].get("dataset", "clips")
    title = TITLES.get(name, name)
    features = datasets.Features.from_dict(manifest["features"])
    reference = REFERENCES.get(name)
    parts = [
        f"---\n{_metadata(manifest, title, features)}\n---\n# {escape(title, quote=False)}, prepared",
        (PUBLIC_NOTICE if is_public else PRIVATE_NOTICE).strip(),
        _split_table(manifest),
        f"## Load\n\n{_loading(manifest, repo_id)}",
        f"## Columns\n\n{_column_table(manifest, features)}",
        f"## Clips of each class\n\n{_class_table(manifest, features)}",
        f"## Where it comes from\n\n{_provenance(manifest)}",
        f"## People and licence\n\n{_licence(features)}",
        *([f"## Citation\n\n{reference}"] if reference else []),
    ]
    return "\n\n".join(parts) + "\n"


def stored_features(features: datasets.Features, storage: str) -> datasets.Features:
    """What plain `datasets` finds in the shards: the columns in Parquet, one for each file of a clip in WebDataset."""
    if storage == "parquet":
        return features
    scalars = {name: feature for name, feature in features.items() if name not in (*ARRAY_COLUMNS, "video")}
    scalars |= {"label_name": datasets.Value("string"), "has_video": datasets.Value("bool")}
    arrays = {f"{name}.npy": features[name] for name in ARRAY_COLUMNS if name in features}
    if arrays:
        scalars["has_keypoints"] = datasets.Value("bool")
    of_reader = {"__key__": datasets.Value("string"), "__url__": datasets.Value("string")}
    return datasets.Features({"json": scalars, **arrays, "mp4": features["video"], **of_reader})


def _metadata(manifest: dict[str, Any], title: str, features: datasets.Features) -> str:
    """The head of the card, in YAML."""
    settings, counts = manifest["settings"], manifest["splits"]
    extension = EXTENSIONS[settings["storage"]]
    num_clips = sum(count["clips"] for count in counts.values())
    size = next((name for limit, name in SIZE_CATEGORIES if num_clips < limit), LARGEST_CATEGORY)
    data_files = [{"split": split, "path": f"data/{split}-*.{extension}"} for split in counts]
    data = DatasetCardData(
        license="other",
        pretty_name=f"{title}, prepared",
        task_categories=["video-classification"],
        size_categories=[size],
        tags=["micro-gesture", "video", *(["pose"] if "keypoints" in features else [])],
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    splits = datasets.SplitDict()
    for split, count in counts.items():
        splits.add(datasets.SplitInfo(split, _bytes_of(manifest, split), count["clips"]))
    num_bytes = sum(info.num_bytes for info in splits.values())
    stored = stored_features(features, settings["storage"])
    info = datasets.DatasetInfo(features=stored, splits=splits, download_size=num_bytes, dataset_size=num_bytes)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return str(data)


def _bytes_of(manifest: dict[str, Any], split: str) -> int:
    files = manifest["files"].items()
    return sum(entry["bytes"] for name, entry in files if name.startswith(f"data/{split}-"))


def _split_table(manifest: dict[str, Any]) -> str:
    rows = [
        [split, f"{count['clips']}", f"{count['frames']}", f"{count['without_label']}"]
        for split, count in manifest["splits"].items()
    ]
    return markdown_table(["split", "clips", "frames", "without label"], rows)


def _class_table(manifest: dict[str, Any], features: datasets.Features) -> str:
    """Every class, in the order of the labels, also those without a clip."""
    splits = [split for split, count in manifest["splits"].items() if count["classes"]]
    if not splits:
        return "No clip has a label."
    rows = []
    for index, name in enumerate(features["label"].names):
        counts = [manifest["splits"][split]["classes"].get(name, 0) for split in splits]
        rows.append([f"{index}", name, *(f"{count}" for count in counts)])
    return markdown_table(["label", "class", *splits], rows)


def _column_table(manifest: dict[str, Any], features: datasets.Features) -> str:
    rows = [[f"`{name}`", _type_name(feature), MEANINGS.get(name, "")] for name, feature in features.items()]
    table = markdown_table(["column", "type", "meaning"], rows)
    if manifest["settings"]["storage"] == "parquet":
        return f"{table}\n\nWhat a clip lacks is `None`; `datasets` may show keypoints that are `None` as NaN."
    arrays = "`keypoints.npy`, `keypoints_valid.npy`, " if "keypoints" in features else ""
    return (
        f"{table}\n\nA clip is a group of files in a tar file: {arrays}`mp4`, and `json` with the other columns, "
        "`label_name`, and whether the clip has a video and keypoints (`has_...`). Without a video `mp4` is empty, "
        "without keypoints their arrays are zeros."
    )


def _type_name(feature: Any) -> str:
    """A type in few words; the names of the classes have a table of their own."""
    if isinstance(feature, datasets.ClassLabel):
        return f"{feature.num_classes} classes" if feature.num_classes > 6 else f"class: {', '.join(feature.names)}"
    if isinstance(feature, datasets.Video):
        return "bytes and name of a file"
    if isinstance(feature, datasets.Array2D | datasets.Array3D):
        sizes = ", ".join("T" if size is None else str(size) for size in feature.shape)
        return f"{feature.dtype} ({sizes})"
    if isinstance(feature, datasets.List):
        return f"{feature.length} x {feature.feature.dtype}"
    return feature.dtype


def _loading(manifest: dict[str, Any], repo_id: str | None) -> str:
    split = next(iter(manifest["splits"]))
    video = "video" if manifest["settings"]["storage"] == "parquet" else "mp4"
    source = repo_id or "path/of/this/folder"
    own = (
        f"`hf download {repo_id} --repo-type dataset --local-dir prepared` copies it for `clipmg_hf`: "
        '`clipmg_hf.data.load_prepared("prepared")`, or `hub_scripts/train.py ... --data_dir prepared`.'
        if repo_id
        else "`clipmg_hf` reads the folder with `clipmg_hf.data.load_prepared`, and trains from it as it is."
    )
    return f"""```python
import io
import av, datasets

rows = datasets.load_dataset("{source}", streaming=True)  # without streaming: a copy on your disk
row = next(iter(rows["{split}"]))
if row["{video}"] and row["{video}"]["bytes"]:  # a clip may lack its video
    with av.open(io.BytesIO(row["{video}"]["bytes"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
```

{own}"""


def _provenance(manifest: dict[str, Any]) -> str:
    """What was read, how it was split, what was done to it and by which versions."""
    source = {name: value for name, value in manifest["source"].items() if name != "description"}
    lines = [f"- {escape(line, quote=False)}" for line in manifest["source"].get("description", [])]
    # A description tells of the split, too.
    facts = {
        **({} if lines else source),
        **manifest["settings"],
        **{f"{name}, version": v for name, v in manifest["packages"].items()},
    }
    rows = [[name, f"`{value}`"] for name, value in facts.items() if value not in ("", None)]
    return "\n".join(
        [*lines, *([""] if lines else []), markdown_table(["setting", "value"], rows), "", MANIFEST_SENTENCE]
    )


def _licence(features: datasets.Features) -> str:
    personal = [name for name in PERSONAL_COLUMNS if name in features]
    notes = f"\n\nThere is personal data in the columns {' and '.join(f'`{name}`' for name in personal)}."
    return (
        "The licence is the agreement under which the recordings were handed out; it is not repeated here.\n\n"
        f"{CONSENT.strip()}{notes if personal else ''}"
    )


__all__ = ["data_card", "stored_features"]
