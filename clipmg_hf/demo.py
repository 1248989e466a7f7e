"""The whole path on synthetic data: generate, train, evaluate, save, reload in a fresh process, predict, draw.

Run it with `make demo`, or `python hub_scripts/demo.py --output_dir demo_output`.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm
from transformers import Trainer, TrainingArguments, set_seed

from clipmg_hf import visualization
from clipmg_hf.data.clips import ClipDataset
from clipmg_hf.data.imigue import load_imigue
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.files import write_file
from clipmg_hf.inference import load_model, predict_clip
from clipmg_hf.metrics import classification_metrics, confusion_matrix
from clipmg_hf.modeling import IMIGUE_LABELS, CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.processing import CLIPMGProcessor, VideoReader, write_openpose
from clipmg_hf.training import make_trainer
from clipmg_hf.video_writing import write_video


FULL_MODEL = "CLIP-MG (RGB and pose)"
NO_POSE = "no pose (RGB alone)"


@dataclass
class DemoArguments:
    """What the demo does; the defaults take about 7 minutes on 2 cores."""

    output_dir: str = field(default="demo_output", metadata={"help": "Everything is written here."})
    seed: int = field(default=0, metadata={"help": "Seed of the data and of the training."})
    max_steps: int = field(default=720, metadata={"help": "Steps of each of the two trainings, 16 clips each."})
    num_views: int = field(default=6, metadata={"help": "Random views of each training clip."})
    num_workers: int = field(default=2, metadata={"help": "Processes that generate and decode videos."})
    num_train_subjects: int = field(default=44, metadata={"help": "Subjects to learn from, one video each."})
    num_validate_subjects: int = field(default=16, metadata={"help": "Other subjects to evaluate on."})


class Trained(NamedTuple):
    """A trained model and what belongs to it."""

    model: CLIPMGForMicroGestureClassification
    trainer: Trainer


def run_demo(args: DemoArguments) -> dict[str, Any]:
    """Run every step and return the contents of `metrics.json`."""
    output = Path(args.output_dir)
    console = Console()
    console.rule("1/5 Generate clips")
    data_config = SyntheticConfig(
        seed=args.seed,
        num_train_subjects=args.num_train_subjects,
        num_validate_subjects=args.num_validate_subjects,
    )
    generate_dataset(output / "data", data_config, num_workers=args.num_workers)
    rows = load_imigue(output / "data", cache_dir=output / "cache")

    processor = CLIPMGProcessor.from_model_config(small_config("gated"), crop_padding=0.1)
    views = PreparedViews(ClipDataset(rows["train"], processor, augment=True), args.num_views, args.num_workers)
    held_out = PreparedViews(ClipDataset(rows["validation"], processor), 1, args.num_workers)

    console.rule("2/5 Train on RGB and pose")
    full = train(args, views, held_out, processor, "gated", output / "training")
    console.rule("3/5 Train the baseline without pose")
    no_pose = train(args, views, held_out, processor, "visual", output / "training_no_pose")

    console.rule("4/5 Evaluate, save, reload in a fresh process")
    metrics = evaluate(args, rows, held_out, {NO_POSE: no_pose, FULL_MODEL: full})
    checkpoint = output / "checkpoint"
    full.model.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    examples = write_examples(rows["validation"], output / "examples")
    metrics["examples"] = predict_in_fresh_process(checkpoint, examples)

    console.rule("5/5 Report")
    draw(output, full.trainer.state.log_history, metrics, examples[0])
    write_file(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print_report(console, metrics, output)
    return metrics


class PreparedViews(Dataset):
    """Random views of clips, processed once and kept in memory: both trainings draw from the same ones.

    Args:
        clips ([`ClipDataset`]): Gives another view each time.
        num_views (`int`): Views of each clip; at 96 pixels and 4 frames one takes 230 KB.
        num_workers (`int`): Processes that decode.
    """

    def __init__(self, clips: ClipDataset, num_views: int, num_workers: int):
        indices = [index for _ in range(num_views) for index in range(len(clips))]
        loader = DataLoader(Subset(clips, indices), batch_size=None, num_workers=num_workers)
        self.items = []
        for item in tqdm(loader, desc="Process views", unit="view"):
            item["pixel_values"] = item["pixel_values"].half()
            # A copy leaves the memory that the worker shares, of which each tensor holds a file open.
            self.items.append({name: tensor.clone() for name, tensor in item.items()})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = self.items[index]
        return {**item, "pixel_values": item["pixel_values"].float()}


def train(
    args: DemoArguments,
    views: PreparedViews,
    held_out: PreparedViews,
    processor: CLIPMGProcessor,
    fusion: str,
    output_dir: Path,
) -> Trained:
    """Train the small model with one fusion; the baseline and the full model share everything else."""
    set_seed(args.seed)
    model = CLIPMGForMicroGestureClassification(small_config(fusion))
    training_args = TrainingArguments(
        output_dir=str(output_dir),
        seed=args.seed,
        max_steps=args.max_steps,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        eval_strategy="steps",
        eval_steps=1 / 4,
        logging_steps=1 / 40,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = make_trainer(model, processor, views, held_out, training_args)
    trainer.train()
    return Trained(model, trainer)


def small_config(fusion: str) -> CLIPMGConfig:
    """Return a model that learns from scratch on a CPU; there are no CLIP weights to freeze, so all of it trains."""
    vision_config = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 8,
    }
    return CLIPMGConfig(
        vision_config=vision_config,
        num_trainable_vision_layers=-1,
        num_frames=4,
        pose_frames_per_frame=4,
        keypoint_layout="imigue-36",
        num_keypoints=36,
        heatmap_size=28,
        pose_base_width=8,
        pose_stage_blocks=(1, 1, 1),
        pose_inflate=(1, 1, 1),
        hidden_size=96,
        num_attention_heads=4,
        mlp_ratio=2,
        hidden_dropout_prob=0.0,
        attention_dropout=0.0,
        classifier_dropout=0.1,
        fusion=fusion,
    )


def write_examples(rows: datasets.Dataset, folder: Path) -> list[dict[str, str]]:
    """Cut one clip per class out of the held-out videos: an mp4 and OpenPose JSON, as a user has them.

    Returns:
        One dictionary per clip: `video`, `keypoints` (a folder) and `label`.
    """
    first_rows = {label: index for index, label in reversed(list(enumerate(rows["label"])))}
    examples = []
    for label, index in sorted(first_rows.items()):
        row = rows.with_format("numpy")[index]
        target = folder / str(row["clip_id"])
        video, keypoints = target / "clip.mp4", target / "keypoints"
        if not keypoints.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            _cut(str(row["video"]), int(row["start_frame"]), int(row["end_frame"]) + 1, video)
            write_openpose(keypoints, row["keypoints"], "clip")
        examples.append({"video": str(video), "keypoints": str(keypoints), "label": IMIGUE_LABELS[label]})
    return examples


def _cut(source: str, start: int, end: int, target: Path) -> None:
    with VideoReader(source) as reader:
        rate = reader.info.average_rate
        write_video(target, (((index - start) / rate, frame) for index, frame in reader.iter_frames(start, end)), rate)


# Runs where `clipmg_hf` is not imported: the folder's own code is what loads the checkpoint.
_FRESH_PROCESS = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor

checkpoint, examples = sys.argv[1], json.loads(sys.argv[2])
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
model = AutoModelForVideoClassification.from_pretrained(checkpoint, trust_remote_code=True)
base = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
inputs = processor([e["video"] for e in examples], [e["keypoints"] for e in examples])
with torch.inference_mode():
    scores = model(**inputs).logits.softmax(-1)
    embedding = base(**inputs).fused_embedding
assert "clipmg_hf" not in sys.modules and torch.isfinite(embedding).all()
labels = [model.config.id2label[i] for i in scores.argmax(-1).tolist()]
json.dump({"labels": labels, "scores": scores.tolist()}, sys.stdout)
"""


def predict_in_fresh_process(checkpoint: Path, examples: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Load the checkpoint with the Auto classes in a new process, and predict the examples there.

    Returns:
        One dictionary per example: `video`, `label` (the true one), `predicted` and `score`.
    """
    command = [sys.executable, "-c", _FRESH_PROCESS, str(checkpoint), json.dumps(examples)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise RuntimeError(f"The saved checkpoint {checkpoint} does not load in a fresh process:\n{done.stderr}")
    answer = json.loads(done.stdout)
    return [
        {"video": example["video"], "label": example["label"], "predicted": label, "score": max(scores)}
        for example, label, scores in zip(examples, answer["labels"], answer["scores"], strict=True)
    ]


def evaluate(
    args: DemoArguments, rows: datasets.DatasetDict, held_out: PreparedViews, models: dict[str, Trained]
) -> dict[str, Any]:
    """Evaluate on the held-out subjects, beside what always predicting the most frequent class gives."""
    labels = np.array(rows["validation"]["label"])
    majority = np.bincount(rows["train"]["label"]).argmax()
    constant = np.zeros((len(labels), len(IMIGUE_LABELS)))
    constant[:, majority] = 1.0
    results = {"constant prediction": classification_metrics(constant, labels)}
    for name, trained in models.items():
        logits = np.asarray(trained.trainer.predict(held_out).predictions)
        results[name] = classification_metrics(logits, labels)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(IMIGUE_LABELS))
    present = sorted(set(labels.tolist()))
    return {
        "arguments": asdict(args),
        "train_clips": len(rows["train"]),
        "validation_clips": len(labels),
        "results": results,
        "classes": [IMIGUE_LABELS[label] for label in present],
        "confusion_matrix": matrix[np.ix_(present, present)].tolist(),
    }


def draw(output: Path, log_history: list[dict], metrics: dict[str, Any], example: dict[str, str]) -> None:
    """Write the learning curves, the confusion matrix, and the overlays of one example."""
    visualization.plot_learning_curves(log_history, output / "learning_curves.png")
    matrix = np.array(metrics["confusion_matrix"])
    visualization.plot_confusion_matrix(matrix, metrics["classes"], output / "confusion_matrix.png")
    model, processor = load_model(output / "checkpoint")
    prediction = predict_clip(model, processor, example["video"], example["keypoints"], explain=True)
    visualization.write_overlay_png(prediction, output / "overlay.png")
    visualization.write_overlay_video(prediction, output / "overlay.mp4")


def print_report(console: Console, metrics: dict[str, Any], output: Path) -> None:
    """Print the metrics beside the baselines, the predictions of the fresh process, and what to try next."""
    table = Table(title=f"Held-out subjects, {metrics['validation_clips']} clips", title_justify="left")
    table.add_column("model")
    for column in ("top-1", "top-5", "mean class", "macro F1"):
        table.add_column(column, justify="right")
    for name, values in metrics["results"].items():
        shown = (values[metric] for metric in ("top1", "top5", "mean_class_accuracy", "macro_f1"))
        table.add_row(name, *(f"{100 * value:.1f} %" for value in shown))
    console.print(table)
    table = Table(title="Predicted by the reloaded checkpoint in a fresh process", title_justify="left")
    for column in ("clip", "true", "predicted", "score"):
        table.add_column(column)
    for example in metrics["examples"]:
        clip = str(Path(example["video"]).parent.name)
        table.add_row(clip, example["label"], example["predicted"], f"{example['score']:.2f}")
    console.print(table)
    example = metrics["examples"][0]
    console.print(
        f"Written to {output}: checkpoint/, metrics.json, learning_curves.png, confusion_matrix.png, overlay.*"
    )
    console.print("Predict a clip yourself:", style="bold")
    keypoints = Path(example["video"]).with_name("keypoints")
    console.print(
        f"  clipmg predict {example['video']} --keypoints {keypoints} --model {output / 'checkpoint'}", soft_wrap=True
    )


__all__ = ["DemoArguments", "run_demo", "small_config"]
