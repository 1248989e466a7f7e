"""Layers that windows share against the pose encoder on each window by itself."""

import numpy as np
import pytest
import torch
from test_engine import CROP, NUM_FRAMES, as_stream, build, compare, images, keypoints, predict_windows  # noqa: F401

from clipmg_hf.inference import stream_windows
from clipmg_hf.inference.pose_stream import SharedLayers


DEEP = {
    "num_frames": 8,
    "pose_frames_per_frame": 2,
    "pose_stage_blocks": (1, 2, 2),
    "pose_inflate": (0, 1, 1),
    "pose_spatial_strides": (1, 2, 2),
    "pose_temporal_strides": (1, 1, 1),
}


@pytest.fixture(scope="module")
def encoder():
    model, _ = build(**DEEP)
    return model.clipmg.pose_encoder


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (8, 8), (11, 3), (16, 4), (20, 1)])
@torch.inference_mode()
def test_windows_of_a_stream_are_those_of_the_encoder(encoder, window, stride, chunk):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 45, 22, 3, generator=generator)
    points[:, 20:24] = 0
    features, visible = encoder.encode_frames(points), (points[..., 2] > 0).any(dim=-1)
    assert SharedLayers.fit(encoder, window)
    layers, start = SharedLayers(encoder, window, stride), 0
    embeddings, expected = [], []
    for first in range(0, 45, chunk):
        layers.push(features[:, first : first + chunk])
        while start + window <= layers.end:
            frames = slice(start, start + window)
            embeddings.append(layers.embed([start], visible[:, frames])[0])
            expected.append(encoder.combine(features[:, frames], visible[:, frames])[0])
            start += stride
            layers.forget(start)
    assert len(embeddings) == (45 - window) // stride + 1
    torch.testing.assert_close(torch.stack(embeddings), torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert torch.stack(expected).std(dim=0).max() > 1e-3


@torch.inference_mode()
def test_what_is_kept_does_not_grow(encoder):
    layers = SharedLayers(encoder, 16, 4)
    features = encoder.encode_frames(torch.rand(1, 8, 22, 3, generator=torch.Generator().manual_seed(0)))
    sizes = []
    for _ in range(12):
        layers.push(features)
        layers.forget(layers.end - 16)
        kept = (layers._means, layers._heads, layers._tails)
        storage = sum(frames.untyped_storage().nbytes() for frames in layers._inputs)
        sizes.append((storage, *map(len, kept)))
    assert len(set(sizes[4:])) == 1


@pytest.mark.parametrize(
    ("values", "window", "fits"),
    [
        ({}, 8, True),
        ({}, 7, False),
        ({"pose_temporal_strides": (1, 2, 1)}, 8, False),
        ({"pose_inflate": (0, 1, 0)}, 8, False),
        ({"pose_inflate": (0, 0, 0)}, 8, False),
    ],
    ids=str,
)
def test_which_layers_can_be_shared(values, window, fits):
    model, _ = build(**{**DEEP, **values})
    assert SharedLayers.fit(model.clipmg.pose_encoder, window) is fits
    assert not SharedLayers.fit(object(), window)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_people_who_leave_and_come_back(batch_size, images, keypoints, monkeypatch):  # noqa: F811
    """The long gap ends the stream of shared layers, and another one begins behind it."""
    model, processor = build(**DEEP)
    begun = []
    begin = SharedLayers.__init__
    monkeypatch.setattr(SharedLayers, "__init__", lambda *arguments: (begun.append(0), begin(*arguments))[1])
    points = np.concatenate([keypoints[:12], np.zeros_like(keypoints[:20]), keypoints[12:20], keypoints[40:]])
    expected = predict_windows(model, processor, images, points, 16, 4, CROP)
    stream = as_stream(images, points)
    windows = list(stream_windows(model, processor, stream, window=16, stride=4, crop=CROP, batch_size=batch_size))
    compare(windows, expected)
    assert len(begun) == 2 and len(points) == NUM_FRAMES
