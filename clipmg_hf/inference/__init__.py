"""From a saved checkpoint and a video to scores: of one clip, of a stream, or a timeline of a whole video."""

from .attention import AttentionTrack
from .checkpoint import CheckpointError, load_model
from .clip import ClipExplanation, ClipPrediction, predict_clip
from .cropping import CropSchedule, crop_segments, crop_video
from .engine import StreamFrame, WindowClassifier, WindowGrid, stream_windows
from .onnx_model import InferenceModel, OnnxModel
from .timeline import FollowedPeople, follow_people, predict_timeline
from .video_stream import LiveVideo, file_frames, open_live


__all__ = [
    "AttentionTrack",
    "CheckpointError",
    "ClipExplanation",
    "ClipPrediction",
    "CropSchedule",
    "FollowedPeople",
    "InferenceModel",
    "LiveVideo",
    "OnnxModel",
    "StreamFrame",
    "WindowClassifier",
    "WindowGrid",
    "crop_segments",
    "crop_video",
    "file_frames",
    "follow_people",
    "load_model",
    "open_live",
    "predict_clip",
    "predict_timeline",
    "stream_windows",
]
