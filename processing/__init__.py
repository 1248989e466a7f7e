"""The processor: decoding, keypoints and geometry. Travels to the Hub beside the weights."""

from .geometry_clipmg import SquareCrop
from .keypoint_layouts_clipmg import (
    LAYOUTS,
    KeypointLayout,
    convert_keypoints,
    describe_conversion,
    get_layout,
    layout_from_count,
    valid_keypoints,
)
from .openpose_clipmg import (
    KeypointFileError,
    OpenPoseFrames,
    OpenPoseSequence,
    read_openpose,
    read_openpose_frames,
    write_openpose,
)
from .processing_clipmg import CLIPMGClip, CLIPMGProcessor
from .video_decoding_clipmg import VideoDecodingError, VideoInfo, VideoReader
from .video_processing_clipmg import CLIPMGVideoProcessor


__all__ = [
    "LAYOUTS",
    "CLIPMGClip",
    "CLIPMGProcessor",
    "CLIPMGVideoProcessor",
    "KeypointFileError",
    "KeypointLayout",
    "OpenPoseFrames",
    "OpenPoseSequence",
    "SquareCrop",
    "VideoDecodingError",
    "VideoInfo",
    "VideoReader",
    "convert_keypoints",
    "describe_conversion",
    "get_layout",
    "layout_from_count",
    "read_openpose",
    "read_openpose_frames",
    "valid_keypoints",
    "write_openpose",
]
