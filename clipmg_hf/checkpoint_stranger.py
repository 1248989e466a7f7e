"""Use a checkpoint as somebody would who has transformers and not this package.

Command:  python -P clipmg_hf/checkpoint_stranger.py FOLDER PROBLEMS.json
Expected: PROBLEMS.json with a list of sentences, empty if the folder loads by the Auto classes, from the code in it
          alone, and predicts. `clipmg_hf.checkpoint_check` starts it in a process of its own.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


PACKAGE = "clipmg_hf"
NUM_FRAMES, HEIGHT, WIDTH = 24, 96, 128
# What the code of a checkpoint has no business with.
FORBIDDEN = {
    "socket.connect": "opens a connection",
    "socket.getaddrinfo": "looks a host up",
    "pickle.find_class": "reads a pickle",
}


class NoPackage(MetaPathFinder):
    """Finds nothing, and fails for this package, wherever it is installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuse the package, leave the rest to others."""
        if fullname.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class Stranger:
    """Loads a folder part by part and notes what fails."""

    def __init__(self, folder: str):
        self.folder = folder
        self.problems: list[str] = []

    def attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """The result, or `None` with a problem noted."""
        try:
            return call()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self.problems.append(f"{what} fails: {type(error).__name__}: {lines[0]}")
            return None

    def forbid(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Hook on what the process does; noted here, because code may hide the error."""
        if event in FORBIDDEN:
            problem = f"its code {FORBIDDEN[event]}: {arguments[1] if event == 'socket.connect' else arguments[0]}"
            self.problems.append(f"{problem}.")
            raise PermissionError(problem)

    def load(self, auto_class: Any, **options: Any) -> Any:
        """Load by an Auto class, with the folder's code and no other."""
        name = auto_class.__name__
        options["trust_remote_code"] = True
        loaded = self.attempt(name, partial(auto_class.from_pretrained, self.folder, **options))
        part = type(loaded[0] if isinstance(loaded, tuple) else loaded)
        if loaded is not None and not part.__module__.startswith("transformers_modules."):
            self.problems.append(f"{name} gives {part.__module__}.{part.__name__}, not code of the folder.")
        return loaded

    def check(self) -> None:
        """Load everything, and predict a made clip with and without keypoints."""
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor
        from transformers.models.auto.video_processing_auto import AutoVideoProcessor

        sys.addaudithook(self.forbid)
        config = self.load(AutoConfig)
        processor = self.load(AutoProcessor)
        self.load(AutoVideoProcessor)
        self.load(AutoModel, dtype=torch.float32)
        loaded = self.load(AutoModelForVideoClassification, dtype=torch.float32, output_loading_info=True)
        if loaded is None:
            return
        model, report = loaded
        for kind, keys in (("are missing", "missing_keys"), ("belong to no layer", "unexpected_keys")):
            if names := sorted(report[keys]):
                self.problems.append(f"weights {kind}: {', '.join(names[:3])}{' ...' * (len(names) > 3)}.")
        if config is not None and processor is not None:
            self.predict(model.eval(), config, processor)

    def predict(self, model: Any, config: Any, processor: Any) -> None:
        """Predict by hand and through the folder's pipelines."""
        frames, keypoints = _make_clip(config.num_keypoints)
        pose = {"keypoints": keypoints, "source_layout": config.keypoint_layout}
        for what, given in (("with", pose), ("without", {})):
            logits = self.attempt(
                f"predicting a clip {what} keypoints", partial(_predict, model, processor, frames, given)
            )
            if logits is None:
                continue
            if logits.shape != (1, config.num_labels):
                shape = tuple(logits.shape)
                self.problems.append(f"logits {what} keypoints are {shape}; expected {(1, config.num_labels)}.")
            elif not logits.isfinite().all():
                self.problems.append(f"logits {what} keypoints are not all finite.")
        for task in getattr(config, "custom_pipelines", None) or {}:
            self.attempt(f"pipeline({task!r})", partial(_run_pipeline, task, self.folder, frames, pose))


def _make_clip(num_keypoints: int) -> tuple[Any, Any]:
    """Frames uint8 (N, height, width, 3) and keypoints (N, K, 3) in pixels, the same each time."""
    import numpy as np

    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    place = generator.uniform((30, 20, 0.5), (WIDTH - 30, HEIGHT - 20, 1), (NUM_FRAMES, num_keypoints, 3))
    return frames, place.astype(np.float32)


def _predict(model: Any, processor: Any, frames: Any, pose: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad():
        return model(**processor(frames, **pose)).logits


def _run_pipeline(task: Any, folder: str, frames: Any, pose: dict[str, Any]) -> None:
    from transformers import pipeline

    classify: Any = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
    classify(frames, **pose)


def main() -> None:
    """Check a folder and write what is wrong with it."""
    folder, output = sys.argv[1:]
    sys.meta_path.insert(0, NoPackage())
    stranger = Stranger(folder)
    stranger.check()
    Path(output).write_text(json.dumps(stranger.problems), encoding="utf-8")


if __name__ == "__main__":
    main()
