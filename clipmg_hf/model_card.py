"""The model card of a checkpoint, from the files of its run: nothing is in it that no file says.

    write_model_card("runs/full", repo_id="owner/clip-mg")          # runs/full/README.md

The words are in `model_card_template.md`, the facts in what lies in the folder: `config.json`, the processor's
settings, `experiment.json` (see `clipmg_hf.run_record`), `trainer_state.json`, `all_results.json`, and the evaluations
that `hub_scripts/evaluate.py` made of these weights. An evaluation of other weights is never taken. What is not known
is left out, heading and all.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from clipmg_hf.data.source import SYNTHETIC_NOTE
from clipmg_hf.evaluation_results import METRIC_NAMES, metric_rows
from clipmg_hf.files import write_file
from clipmg_hf.model_card_facts import CardFacts, EvaluationFacts, read_card_facts
from clipmg_hf.modeling import CLIPMGConfig
from clipmg_hf.modeling.checkpoint_files_clipmg import CARD_FILE
from clipmg_hf.text import escape_markdown, markdown_table, plural


TEMPLATE = Path(__file__).with_name("model_card_template.md")
TASK, LIBRARY = "video-classification", "transformers"
TAGS = ("clipmg", "micro-gesture-recognition", "pose", "keypoints", "clip", "human-behavior")
# Metrics of the Hub's index: its name of each, and what tells those of one name apart.
_INDEX_METRICS: dict[str, tuple[str, dict[str, Any]]] = {
    "top1": ("accuracy", {}),
    "top5": ("top_5_accuracy", {}),
    "mean_class_accuracy": ("balanced_accuracy", {}),
    "macro_f1": ("f1", {"average": "macro"}),
    "weighted_f1": ("f1", {"average": "weighted"}),
}
_MODALITIES = {"rgb": "RGB alone, the keypoints hidden", "pose": "keypoints alone, the video hidden"}
# What the paper states of the vision tower.
_VIT_B16 = {"hidden_size": 768, "num_hidden_layers": 12, "patch_size": 16, "image_size": 224}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def write_model_card(
    folder: str | PathLike, evaluation_dirs: Sequence[str | PathLike] | None = None, **options: Any
) -> Path:
    """Write `README.md` of a checkpoint's folder, in place of one that is there.

    Args:
        folder (`str` or `PathLike`): Folder of a run or of a checkpoint in it.
        evaluation_dirs: See [`read_card_facts`].
        options: Those of [`make_model_card`].
    """
    path = Path(folder) / CARD_FILE
    write_file(path, str(make_model_card(read_card_facts(folder, evaluation_dirs), **options)))
    return path


def make_model_card(
    facts: CardFacts,
    *,
    repo_id: str | None = None,
    model_name: str | None = None,
    license: str | None = None,
    tags: Iterable[str] = (),
    datasets: Iterable[str] = (),
) -> ModelCard:
    """Make the card.

    Args:
        facts ([`CardFacts`]): From [`read_card_facts`].
        repo_id (`str`, *optional*): `"owner/name"`, for the examples of use.
        model_name (`str`, *optional*): Title; by default the repository's name.
        license (`str`, *optional*): Of the weights, by the Hub's identifier. By default Apache-2.0 for synthetic data,
            else "other": who trained on licensed data has to look into that licence.
        tags (`Iterable[str]`): Added to ours.
        datasets (`Iterable[str]`): Data sets of the Hub that it was trained on.
    """
    name = model_name or (repo_id.rpartition("/")[2] if repo_id else "CLIP-MG")
    source = _source(facts.record.get("source"))
    license_fields: dict[str, Any] = {"license": license or ("apache-2.0" if _is_synthetic(source) else "other")}
    if license is None and not _is_synthetic(source):
        license_fields["license_name"] = "see-model-card"
    results = list(_index_results(facts))
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[*dict.fromkeys([*TAGS, *tags])],
        base_model=_base_model(facts.record),
        datasets=list(datasets) or None,
        metrics=[*dict.fromkeys(result.metric_type for result in results)] or None,
        model_name=name if results else None,
        eval_results=results or None,
        **license_fields,
    )
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **_texts(facts, name, repo_id, license))
    # What is not known leaves empty lines behind.
    return ModelCard(re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n")


def _texts(facts: CardFacts, name: str, repo_id: str | None, license: str | None) -> dict[str, Any]:
    """Values of the template's fields."""
    config, source = facts.config, _source(facts.record.get("source"))
    classes = facts.record.get("train", {}).get("classes", {})
    call = [*(['"clip.mp4"'] if config.uses_vision else []), *(_keypoint_words(config))]
    return {
        "name": name,
        "streams": _and(
            [*(["video"] if config.uses_vision else []), *(["body keypoints"] if config.uses_pose else [])]
        ),
        "num_classes": config.num_labels,
        "data": _data_name(source),
        "is_synthetic": _is_synthetic(source),
        "variant": describe_variant(config),
        "place": repo_id or "path/to/this/folder",
        "call": ", ".join(call),
        "pipeline_call": ", ".join(call) if config.uses_vision else '{"keypoints": "openpose_json/"}',
        "needs_keypoints": config.uses_pose,
        "has_video": config.uses_vision,
        "layout": config.keypoint_layout,
        "results": "\n\n".join(_results(facts)),
        "model_table": _model_table(facts),
        "differences": "; ".join(_differences(facts)),
        "training": "\n\n".join(_training(facts)),
        "classes_without_clips": "; ".join(escape_markdown(name) for name, count in classes.items() if not count),
        "chosen_on": _chosen_on(facts.record),
        "license": license,
    }


def _keypoint_words(config: CLIPMGConfig) -> list[str]:
    return ['keypoints="openpose_json/"'] if config.uses_pose else []


def describe_variant(config: CLIPMGConfig) -> str:
    """Which of the ablations a model is."""
    if not config.uses_vision:
        return "pose alone, without the vision tower"
    parts = []
    if not config.uses_pose:
        parts.append("no pose: RGB alone")
    elif config.fusion != "gated":
        parts.append(
            {"concat": "concatenation in place of the gate", "sum": "sum in place of the gate"}[config.fusion]
        )
    if not config.use_semantic_attention:
        parts.append("mean of the patches in place of attention")
    elif config.uses_pose and config.query != "fused":
        parts.append(
            {"pose": "query of the pose alone", "pose_pool": "query of the patches under the keypoints"}[config.query]
        )
    return ", ".join(parts) or "full model (semantic attention guided by pose, gated fusion)"


def _source(source: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(source or {})


def _is_synthetic(source: Mapping[str, Any]) -> bool:
    return bool(source.get("synthetic"))


def _data_name(source: Mapping[str, Any]) -> str | None:
    title = source.get("title")
    return f"synthetic data in the layout of {title}" if title and _is_synthetic(source) else title


def _evaluation_source(facts: CardFacts, evaluation: EvaluationFacts) -> dict[str, Any]:
    """Of the data of an evaluation: as it says, else, for the folder that was trained on, as the run says."""
    data = evaluation.metrics.get("data", {})
    if data.get("source"):
        return dict(data["source"])
    if data.get("description"):
        title = data["description"][0].rstrip(".")
        return {"title": title, "synthetic": SYNTHETIC_NOTE in data["description"]}
    trained = facts.record.get("data", {}).get("data_dir")
    return _source(facts.record.get("source")) if trained and trained == data.get("path") else {}


def _index_results(facts: CardFacts) -> Iterator[EvalResult]:
    """Entries of the Hub's `model-index`; without the name of the data there can be none."""
    splits = set()
    for evaluation in facts.evaluations:
        metrics, source = evaluation.metrics["metrics"], _evaluation_source(facts, evaluation)
        if not source.get("title"):
            continue
        split, options = evaluation.metrics["data"]["split"], evaluation.metrics["options"]
        bootstrap = evaluation.metrics["bootstrap"]
        splits.add(split)
        how = {"modality": options["modality"], "views": evaluation.metrics["source"]["views"]}
        for name in (name for name in _INDEX_METRICS if name in metrics):
            value = metrics[name]
            interval = {}
            if value["low"] is not None:
                interval = {
                    "interval": [round(value["low"], 4), round(value["high"], 4)],
                    "confidence": bootstrap["confidence"],
                    "resampled": bootstrap["unit"],
                }
            yield _index_entry(name, value["value"], source, split, {**how, **interval})
    source, split = _source(facts.record.get("source")), facts.record.get("data", {}).get("eval_split")
    if source.get("title") and split and split not in splits:
        for name in (name for name in _INDEX_METRICS if f"eval_{name}" in facts.results):
            yield _index_entry(name, facts.results[f"eval_{name}"], source, split, {"views": 1})


def _index_entry(name: str, value: float, source: Mapping[str, Any], split: str, more: dict[str, Any]) -> EvalResult:
    metric, settings = _INDEX_METRICS[name]
    kind = "synthetic" if _is_synthetic(source) else source["title"].partition(",")[0].lower().replace(" ", "-")
    return EvalResult(
        task_type=TASK,
        task_name="Micro-gesture recognition",
        dataset_type=kind,
        dataset_name=_data_name(source) or kind,
        dataset_split=split,
        metric_type=metric,
        metric_name=METRIC_NAMES[name],
        metric_value=round(value, 4),
        metric_args={**settings, **more},
    )


def _results(facts: CardFacts) -> Iterator[str]:
    for evaluation in facts.evaluations:
        yield from _evaluation_texts(facts, evaluation)
    if not facts.evaluations and (rows := list(_trainer_rows(facts.results))):
        evaluated, split = facts.record.get("evaluation"), facts.record.get("data", {}).get("eval_split")
        of = [f"the split `{split}`"] if split else []
        of += [plural(evaluated["clips"], "clip")] if evaluated else []
        where = f" on {', '.join(of)}" if of else ""
        yield f"As Trainer measured it{where}, one view of each clip, without intervals."
        yield markdown_table(["Metric", "Value"], rows)


def _trainer_rows(results: Mapping[str, float]) -> Iterator[list[str]]:
    for name, title in METRIC_NAMES.items():
        if f"eval_{name}" in results:
            yield [title, f"{100 * results[f'eval_{name}']:.1f} %"]
    if "eval_nll" in results:
        yield ["negative log-likelihood", f"{results['eval_nll']:.3f}"]


def _evaluation_texts(facts: CardFacts, evaluation: EvaluationFacts) -> Iterator[str]:
    content = evaluation.metrics
    options, counts, bootstrap = content["options"], content["counts"], content["bootstrap"]
    name = _data_name(_evaluation_source(facts, evaluation))
    modality = _MODALITIES.get(options["modality"])
    yield f"### Split `{content['data']['split']}`{'' if modality is None else f': {modality}'}"
    parts = [*([name] if name else []), f"{plural(counts['labelled_clips'], 'clip')} with a label"]
    parts += [plural(counts["videos"], "video"), plural(content["source"]["views"], "view") + " of each clip"]
    if options["flip"]:
        parts[-1] += ", half of them mirrored"
    text = f"{'; '.join(parts)}."
    text = text[0].upper() + text[1:]
    if settings := _settings_text(content["data"].get("settings", {})):
        text += f" Split by {settings}."
    if any(value["low"] is not None for value in content["metrics"].values()):
        text += (
            f" Intervals hold {100 * bootstrap['confidence']:g} % of {bootstrap['num_samples']:,} bootstrap draws of "
            f"{bootstrap['unit']}s."
        )
    yield text
    rows = metric_rows(content["metrics"], content["calibration"]["ece"], content["f1_mean"])
    yield markdown_table(["Metric", "Value", "Interval"], [list(row) for row in rows], align=True)
    if evaluation.per_class:
        yield "By class (clips of the class; what has nothing to count is empty):"
        columns = ("precision", "recall", "f1")
        table = [
            [row["class"], row["support"], *(_percent(row[column]) for column in columns)]
            for row in evaluation.per_class
            if int(row["support"]) or int(row["predicted"])
        ]
        yield markdown_table(["Class", "Clips", "Precision", "Recall", "F1"], table, align=True)


def _settings_text(settings: Mapping[str, Any]) -> str:
    """How data was split; a seed or a fold alone decides nothing."""
    words = {"protocol": "protocol", "validation": "share to validate on", "split_seed": "seed", "fold": "fold"}
    if settings.get("protocol") is None and settings.get("validation") is None:
        return ""
    return ", ".join(f"{words[name]} {settings[name]}" for name in words if settings.get(name) is not None)


def _model_table(facts: CardFacts) -> str:
    config, vision = facts.config, facts.config.vision_config
    rows = []
    if facts.num_parameters is not None:
        rows.append(["Parameters", f"{facts.num_parameters:,}"])
    rows.append(["Classes", str(config.num_labels)])
    if config.uses_vision:
        blocks, trained = plural(vision.num_hidden_layers, "block"), config.num_trainable_vision_layers
        rows += [
            ["Frames", f"{config.num_frames} of {vision.image_size} x {vision.image_size} pixels"],
            [
                "Vision tower",
                f"CLIP ViT of width {vision.hidden_size}, {blocks}, patches of {vision.patch_size} pixels",
            ],
            ["Trained blocks of the tower", {0: "none", -1: "all"}.get(trained, f"last {trained}")],
        ]
    if config.uses_pose:
        rows += [
            ["Keypoints", f"{config.num_keypoints} (`{config.keypoint_layout}`)"],
            ["Frames of keypoints", str(config.num_frames * config.pose_frames_per_frame)],
        ]
    rows.append(["Width, heads", f"{config.hidden_size}, {config.num_attention_heads}"])
    return markdown_table(["", "Value"], rows)


def _differences(facts: CardFacts) -> Iterator[str]:
    """In what the model departs from what the paper states."""
    config, model = facts.config, facts.record.get("model", {})
    if (variant := describe_variant(config)) and not variant.startswith("full"):
        yield variant
    if config.uses_vision:
        if any(getattr(config.vision_config, name) != value for name, value in _VIT_B16.items()):
            yield "another vision tower than ViT-B/16"
        if config.num_trainable_vision_layers:
            yield "the tower is trained, as a whole or in part"
        if model and not (model.get("clip_checkpoint") or model.get("model_name_or_path")):
            yield "it began with random weights, not with CLIP's"
        if model.get("lora_rank"):
            yield f"LoRA of rank {model['lora_rank']} on the tower"
    if config.uses_pose and not config.keypoint_layout.startswith(("openpose", "imigue")):
        yield f"keypoints of `{config.keypoint_layout}`"
    if config.num_labels != 32:
        yield plural(config.num_labels, "class", "classes")


def _training(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    if text := _training_data(record):
        yield text
    if rows := [[name, value] for name, value in _recipe(facts) if value is not None]:
        yield markdown_table(["", "Value"], rows)


def _training_data(record: Mapping[str, Any]) -> str:
    sentences = []
    source, data = _source(record.get("source")), record.get("data", {})
    if name := _data_name(source):
        sentences.append(f"Data: {name}.")
    if settings := _settings_text(data):
        sentences.append(f"Split by {settings}.")
    if share := data.get("background_share"):
        sentences.append(f"Clips of the gaps between gestures, {share:g} for each of these, are the class Background.")
    if train := record.get("train"):
        with_clips = sum(count > 0 for count in train["classes"].values())
        split = f" of the split `{data['train_split']}`" if data.get("train_split") else ""
        sentences.append(
            f"Trained on {plural(train['clips'], 'clip')}{split}, which show {with_clips} of "
            f"{plural(len(train['classes']), 'class', 'classes')}."
        )
    return " ".join(sentences)


def _recipe(facts: CardFacts) -> Iterator[tuple[str, str | None]]:
    record, state, model = facts.record, facts.state, facts.record.get("model", {})
    training, loss = record.get("training", {}), record.get("loss", {})
    yield "Start", _start(model) if model else None
    if step := state.get("global_step"):
        yield "Steps", f"{step:,} of {state['max_steps']:,} planned ({state['epoch']:.4g} epochs)"
    if training.get("load_best_model_at_end") and state.get("best_global_step"):
        best = f"{training['metric_for_best_model']} after {state['best_global_step']:,} steps"
        yield "Chosen by", best if facts.results else None
    if training:
        yield "Clips of a step", str(training["clips_per_step"])
        yield "Optimizer", f"{training['optim']}, weight decay {training['weight_decay']:g}"
        warmup = f", warm-up {training['warmup_steps']:g}" if training.get("warmup_steps") else ""
        yield "Learning rate", f"{training['learning_rate']:g}, {training['lr_scheduler_type']}{warmup}"
    factors = record.get("learning_rate_factors") or {}
    changed = [
        f"{name.removesuffix('_factor').replace('_', ' ')} {factors[name]:g}" for name in factors if factors[name] != 1
    ]
    yield "Learning rate of parts", ", ".join(changed) or None
    yield "Loss", _loss(loss) if loss else None
    sampling = record.get("optimization", {}).get("balanced_sampling")
    yield "Balanced sampling", f"{sampling:g}" if sampling else None
    yield "Augmentation", _augmentation(facts) if record.get("data", {}).get("augment", False) else None
    if training:
        precision = next((name for name in ("bf16", "fp16") if training.get(name)), "float32")
        yield "Precision", precision
        data_seed = training.get("data_seed")
        yield "Seed", str(training["seed"]) + (f", of the data {data_seed}" if data_seed is not None else "")
    yield "Hardware", _hardware(record)
    yield "Code", _code(record.get("code"))
    yield "Versions", ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items()) or None


def _start(model: Mapping[str, Any]) -> str:
    parts = []
    for name, what in (
        ("clip_checkpoint", "vision tower of CLIP"),
        ("model_name_or_path", "checkpoint"),
        ("pose_checkpoint", "trained pose encoder"),
    ):
        if model.get(name):
            place = model[name]
            parts.append(f"{what} `{place}`" if _is_repository(place) else f"{what} (local)")
    return ", ".join(parts) or "random weights"


def _is_repository(place: str) -> bool:
    return _REPOSITORY.fullmatch(place) is not None and not Path(place).exists()


def _base_model(record: Mapping[str, Any]) -> str | None:
    model = record.get("model", {})
    found = model.get("model_name_or_path") or model.get("clip_checkpoint")
    return found if found and _is_repository(found) else None


def _loss(loss: Mapping[str, Any]) -> str:
    parts = ["cross-entropy"]
    if loss.get("class_weighting", "none") != "none":
        parts.append(f"class weights `{loss['class_weighting']}`")
    for name, what in (
        ("focal_gamma", "focal gamma"),
        ("logit_adjustment", "logit adjustment"),
        ("label_smoothing", "label smoothing"),
        ("label_embedding_weight", "label embeddings"),
    ):
        if loss.get(name):
            parts.append(f"{what} {loss[name]:g}")
    return ", ".join(parts)


def _augmentation(facts: CardFacts) -> str | None:
    values = {
        name.removeprefix("augmentation_"): value
        for name, value in facts.processor.items()
        if name.startswith("augmentation_")
    }
    shown = []
    for name, value in values.items():
        if isinstance(value, list):
            shown.append(f"{name} {value[0]:g} to {value[1]:g}")
        elif value:
            shown.append(f"{name.replace('_', ' ')} {value:g}")
    return ", ".join(shown) or None


def _hardware(record: Mapping[str, Any]) -> str | None:
    hardware, processes = record.get("hardware"), record.get("processes")
    if not hardware:
        return None
    return f"{hardware['name']} ({hardware['type']})" + (f", {processes} processes" if (processes or 1) > 1 else "")


def _code(code: Mapping[str, Any] | None) -> str | None:
    if not code:
        return None
    commit = f", commit `{code['commit']}`" if code.get("commit") else ""
    return f"clipmg_hf {code['version']}{commit}{' with changes' if code.get('changed') else ''}"


def _chosen_on(record: Mapping[str, Any]) -> str | None:
    """On which data the checkpoint was chosen; `None` if it is the last one."""
    if not record.get("training", {}).get("load_best_model_at_end"):
        return None
    split = record.get("data", {}).get("eval_split")
    return f"the split `{split}`" if split else "the data of the evaluations during training"


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f} %" if value else ""


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


__all__ = [
    "CARD_FILE",
    "describe_variant",
    "make_model_card",
    "write_model_card",
]
