"""What can be chosen about timelines, for the command line and for scripts; imports nothing that is heavy."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from clipmg_hf.event_decoding import EventDecoding
from clipmg_hf.pose_choice import ESTIMATORS, PoseName, check_pose_choice


FORMATS = ("csv", "tsv", "windows", "json", "elan", "boris", "webvtt", "textgrid", "page", "video")
DEFAULT_FORMATS = ("csv", "json", "elan", "page")
CropName = Literal["video", "segments"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
BackendName = Literal["torch", "onnx"]
CROPS, DTYPES, BACKENDS = map(get_args, (CropName, DtypeName, BackendName))
# These change how fast it goes, and not what comes out; a folder holds a model for one backend.
_SPEED = ("batch_size", "device", "backend")


@dataclass(frozen=True)
class TimelineOptions:
    """How the timelines of videos are made.

    Raises:
        ValueError: A value outside its range; the message quotes it.
    """

    pose: PoseName | None = field(
        default=None, metadata={"help": f"Finds people where there are no keypoints: {', '.join(ESTIMATORS)}."}
    )
    pose_weights: str | None = field(
        default=None, metadata={"help": "Weights of the pose estimator: a folder or a file."}
    )
    person_detector: str | None = field(
        default=None, metadata={"help": "Person detector of ViTPose (a folder) or RTMPose (an .onnx file)."}
    )
    subject: str = field(
        default="largest",
        metadata={
            "help": "Whom to follow: largest, most_central, longest, all, index:1 or box:10,20,300,400 in pixels."
        },
    )
    crop: CropName = field(
        default="video",
        metadata={"help": "One square around the person for the whole video, or several for who moves far."},
    )
    start: float | None = field(default=None, metadata={"help": "First second to look at."})
    end: float | None = field(default=None, metadata={"help": "Second to stop at."})
    window: int = field(default=32, metadata={"help": "Frames that the model sees at a time."})
    stride: int = field(default=8, metadata={"help": "Frames from one window to the next."})
    threshold: float = field(
        default=EventDecoding.threshold, metadata={"help": "Score that a gesture needs, between 0 and 1."}
    )
    change_cost: float = field(
        default=EventDecoding.change_cost,
        metadata={
            "help": "What a change of gesture costs: more drops short and unsure ones and bridges dips, in seconds."
        },
    )
    smoothing: float = field(
        default=EventDecoding.smoothing,
        metadata={"help": "Seconds over which scores are averaged on top of the windows."},
    )
    min_duration: float = field(
        default=EventDecoding.min_duration, metadata={"help": "Shorter gestures are dropped, in seconds."}
    )
    max_duration: float | None = field(
        default=EventDecoding.max_duration, metadata={"help": "Longer gestures are cut, in seconds."}
    )
    merge_gap: float = field(
        default=EventDecoding.merge_gap,
        metadata={"help": "Equal gestures that are no further apart become one, in seconds."},
    )
    overlapping: bool = field(
        default=not EventDecoding.one_at_a_time, metadata={"help": "A person may make several gestures at a time."}
    )
    formats: list[str] = field(
        default_factory=lambda: list(DEFAULT_FORMATS), metadata={"help": f"What to write: {', '.join(FORMATS)}."}
    )
    attention: bool = field(
        default=False,
        metadata={"help": "Draw where the model looked over the annotated video; a stopped video then begins anew."},
    )
    blur_face: bool = field(
        default=False, metadata={"help": "Make faces unrecognisable in the annotated video; needs keypoints."}
    )
    batch_size: int = field(default=16, metadata={"help": "Frames that go through the model together."})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, cuda:1, ...; cuda if there."})
    dtype: DtypeName = field(
        default="auto",
        metadata={"help": "Type of the weights: auto (as they were saved), float32, bfloat16 or float16."},
    )
    backend: BackendName = field(
        default="torch", metadata={"help": "What runs the model: torch, or onnx for an exported folder."}
    )

    def __post_init__(self) -> None:
        choices = {"crop": CROPS, "dtype": DTYPES, "backend": BACKENDS, "pose": (None, *ESTIMATORS)}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; expected {', '.join(str(choice) for choice in known)}.")
        if not self.formats or (unknown := [name for name in self.formats if name not in FORMATS]):
            wrong = repr(unknown[0]) if self.formats else "empty"
            raise ValueError(f"formats: {wrong} is none of them; expected one or more of {', '.join(FORMATS)}.")
        if self.window < 1 or not 1 <= self.stride <= self.window:
            raise ValueError(
                f"window is {self.window} and stride is {self.stride}; expected a window of at least 1 frame and a "
                "stride of 1 to as many frames as the window."
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1.")
        check_pose_choice(self.pose, self.pose_weights, self.person_detector)

    @property
    def decoding(self) -> EventDecoding:
        """How windows become events; a ValueError for a value outside its range."""
        names = ("threshold", "change_cost", "smoothing", "min_duration", "max_duration", "merge_gap")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return EventDecoding(**values, one_at_a_time=not self.overlapping)

    def to_settings(self) -> dict[str, Any]:
        """What results depend on, as JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in _SPEED}
        return values | {"formats": sorted(set(self.formats))}


__all__ = ["BACKENDS", "CROPS", "DEFAULT_FORMATS", "DTYPES", "FORMATS", "TimelineOptions"]
