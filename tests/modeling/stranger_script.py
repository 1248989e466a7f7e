"""What a stranger does with a checkpoint; run by `test_stranger.py` in an environment of its own, never collected."""

import importlib.util
import io
import json
import sys
from functools import partial

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor


AUTO_CLASSES = (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, AutoVideoProcessor)
# What neither the code of a checkpoint nor the loading of one does, but for a download.
NOT_DONE = ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system")
TASKS = ("micro-gesture-classification", "video-classification")


def main() -> None:
    events = []
    sys.addaudithook(lambda event, values: events.append(f"{event} {values}") if event in NOT_DONE else None)
    given = json.loads(sys.argv[1])
    for name in given["absent"]:
        assert importlib.util.find_spec(name) is None, f"{name} can be imported"
    # Nobody is there to be asked.
    sys.stdin = io.StringIO()
    refusals = {}
    if given["refusals"]:
        loaders = {auto_class.__name__: auto_class.from_pretrained for auto_class in AUTO_CLASSES}
        loaders |= {task: partial(pipeline, task) for task in TASKS}
        refusals = {name: refusal_of(load, given["name"]) for name, load in loaders.items()}
    outputs = {str(revision): use(given["name"], revision, given) for revision in given["revisions"]}
    if given["again"]:
        save_again(given["name"], given["again"])
        outputs["again"] = use(given["again"] + "/head", None, given)
        outputs["pipeline"] = pipeline(TASKS[0], model=given["again"] + "/pipeline", trust_remote_code=True)(
            given["video"], keypoints=np.load(given["keypoints"])
        )
        outputs["base"] = embed(given["again"] + "/base", None, given)
    # Whoever was asked for consent is still in the line.
    print("\n" + json.dumps({"refusals": refusals, "outputs": outputs, "events": events}))


def refusal_of(load, name: str) -> str:
    try:
        # The name is the first argument of an Auto class, and the second of a pipeline whose task is given.
        load(name)
    except (ValueError, RuntimeError) as error:
        return f"{error} {error.__cause__ or ''}"
    raise AssertionError(f"{load} ran code without being told to")


def use(name: str, revision: str | None, given: dict) -> dict:
    """Load everything, and collect all that comes out."""
    trust = {"trust_remote_code": True, "revision": revision}
    video, keypoints = given["video"], np.load(given["keypoints"])
    config = AutoConfig.from_pretrained(name, **trust)
    model = AutoModelForVideoClassification.from_pretrained(name, **trust)
    processor = AutoProcessor.from_pretrained(name, **trust)
    video_processor = AutoVideoProcessor.from_pretrained(name, **trust)
    for part in (config, model, processor, video_processor):
        assert type(part).__module__.startswith("transformers_modules."), type(part)
    inputs = processor(video, keypoints)
    with torch.no_grad():
        logits = model(**inputs).logits[0].tolist()
    gestures = pipeline(TASKS[0], model=name, **trust)
    videos = pipeline(TASKS[1], model=name, **trust)
    assert type(gestures).__module__.startswith("transformers_modules."), type(gestures)
    return {
        "logits": logits,
        "embedding": embed(name, revision, given),
        "pixels": processor(video)["pixel_values"].sum().item(),
        "pixels changed": processor(video, keypoints, augment=True, seeds=3)["pixel_values"].sum().item(),
        "pixels alone": video_processor(video)["pixel_values"].sum().item(),
        "labels": list(config.id2label.values()),
        TASKS[0]: gestures(video, keypoints=keypoints),
        TASKS[1]: videos(video),
    }


def embed(name: str, revision: str | None, given: dict) -> list[float]:
    base = AutoModel.from_pretrained(name, trust_remote_code=True, revision=revision)
    processor = AutoProcessor.from_pretrained(given["name"], trust_remote_code=True)
    with torch.no_grad():
        return base(**processor(given["video"], np.load(given["keypoints"]))).fused_embedding[0].tolist()


def save_again(name: str, folder: str) -> None:
    AutoModelForVideoClassification.from_pretrained(name, trust_remote_code=True).save_pretrained(folder + "/head")
    AutoProcessor.from_pretrained(name, trust_remote_code=True).save_pretrained(folder + "/head")
    AutoModel.from_pretrained(name, trust_remote_code=True).save_pretrained(folder + "/base")
    pipeline(TASKS[0], model=name, trust_remote_code=True).save_pretrained(folder + "/pipeline")


if __name__ == "__main__":
    main()
