"""The model card says what the files of a run say, all of it, and nothing else."""

import ast
import csv
import json
import re
import shutil

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny_models import TINY, command_line

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.arguments import parse_arguments
from clipmg_hf.data.labels import IMIGUE_GROUPS
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.evaluation import Evaluation, EvaluationOptions
from clipmg_hf.evaluation_results import describe_checkpoint, measure, options_facts, write_evaluation
from clipmg_hf.experiment import prepare_experiment, run_experiment
from clipmg_hf.model_card import describe_variant, make_model_card, write_model_card
from clipmg_hf.model_card_facts import read_card_facts
from clipmg_hf.score_files import Scores


RUN = {
    **TINY, "keypoint_layout": "imigue-36", "per_device_train_batch_size": 4, "max_steps": 2, "save_strategy": "steps",
    "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "label_smoothing": 0.1,
    "metric_for_best_model": "eval_top1", "report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 7,
    "learning_rate": 1e-3, "crop_padding": 0.1, "augmentation_flip": 0.25,
}  # fmt: skip
HEADINGS = ["Use", "Model", "Intended use", "Limits", "Privacy and consent", "Licence", "Citation"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on synthetic data, with two evaluations of its model."""
    root = tmp_path_factory.mktemp("card")
    config = SyntheticConfig(
        seed=6, num_train_subjects=1, num_validate_subjects=2, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    generate_dataset(root / "secret-place", config, show_progress=False)
    where = {"data_dir": root / "secret-place", "data_cache_dir": root / "cache", "output_dir": root / "run"}
    run_experiment(prepare_experiment(parse_arguments(command_line({**where, **RUN}))))
    evaluate(root / "run", root / "run" / "validation")
    evaluate(root / "run", root / "run" / "validation-rgb", modality="rgb")
    return root / "run"


def evaluate(folder, output, modality="both", num_videos=4):
    """What `hub_scripts/evaluate.py` writes, with scores that no model gave."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 10, 40)
    logits = generator.normal(size=(40, 32))
    logits[np.arange(40), labels] += 2
    names = [CLIPMGConfig.from_pretrained(folder).id2label[index] for index in range(32)]
    scores = Scores(
        clip_ids=[f"clip-{index}" for index in range(40)], video_ids=[f"v{index % num_videos}" for index in range(40)],
        logits=logits, labels=labels, label_names=names, checkpoint=str(folder), revision=None,
        data_fingerprint="f", split="validation", views=2,
    )  # fmt: skip
    measurement = measure(scores, IMIGUE_GROUPS, num_samples=50)
    record = json.loads((folder / "experiment.json").read_text())
    facts = {
        "checkpoint": describe_checkpoint(folder),
        "data": {"path": str(folder), "split": "validation", "settings": {}, "source": record["source"]},
        "options": options_facts(EvaluationOptions(num_views=2, modality=modality)),
        "bootstrap": {"num_samples": 50, "confidence": 0.95, "unit": "video"},
    }
    write_evaluation(output, Evaluation(scores), IMIGUE_GROUPS, measurement, facts)


def sections(card):
    """Text under each heading, outside of code."""
    text = re.sub(r"```.*?```", "code", card.text, flags=re.S)
    parts = re.split(r"^#+ (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def test_the_card_says_what_the_run_says(run):
    card = make_model_card(read_card_facts(run), repo_id="owner/clip-mg")
    found = sections(card)
    assert [name for name in found if name in HEADINGS] == HEADINGS and "Training" in found
    record = json.loads((run / "experiment.json").read_text())
    state = json.loads((run / "trainer_state.json").read_text())
    training = found["Training"]
    assert "synthetic data in the layout of iMiGUE, MiGA packs" in training
    assert f"Trained on {record['train']['clips']} clips of the split `train`" in training
    assert f"| Steps | {state['global_step']} of 2 planned" in training
    for row in (
        "| Start | random weights |", "| Seed | 7 |", "| Clips of a step | 4 |", "| Precision | float32 |",
        "| Loss | cross-entropy, label smoothing 0.1 |", "flip 0.25",
        f"eval_top1 after {state['best_global_step']} steps", f"torch {record['versions']['torch']}",
        f"{record['hardware']['name']} (cpu)", f"clipmg_hf {record['code']['version']}",
    ):  # fmt: skip
        assert row in training, row
    if record["code"]["commit"]:
        assert record["code"]["commit"] in training
    assert "chosen by its results on the split `validation`" in found["Limits"]
    empty = next(name for name, count in record["train"]["classes"].items() if not count)
    assert empty in found["Limits"]
    assert "The training data is synthetic" in card.text
    assert str(run.parent) not in str(card) and "secret-place" not in str(card)


def test_results_are_those_of_the_evaluation_with_their_intervals(run):
    card = make_model_card(read_card_facts(run), repo_id="owner/clip-mg")
    metrics = json.loads((run / "validation" / "metrics.json").read_text())["metrics"]
    text = sections(card)["Split `validation`"]
    low, high = (f"{100 * metrics['top1'][name]:.1f}" for name in ("low", "high"))
    assert f"| top-1 | {100 * metrics['top1']['value']:.1f} % | {low} to {high} % |" in text
    assert "40 clips with a label; 4 videos; 2 views of each clip." in text
    assert "95 % of 50 bootstrap draws of videos" in text
    with (run / "validation" / "per_class.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            is_shown = row["support"] != "0" or row["predicted"] != "0"
            assert (f"| {row['class']} | {row['support']} |" in text) == is_shown
    rgb = [result for result in card.data.eval_results if result.metric_args["modality"] == "rgb"]
    both = [result for result in card.data.eval_results if result.metric_args["modality"] == "both"]
    assert len(rgb) == len(both) == 5 and "Split `validation`: RGB alone, the keypoints hidden" in sections(card)
    entry = next(result for result in both if result.metric_name == "top-1")
    assert (entry.task_type, entry.dataset_type, entry.dataset_split) == (
        "video-classification", "synthetic", "validation",
    )  # fmt: skip
    assert (entry.metric_type, entry.metric_value) == ("accuracy", round(metrics["top1"]["value"], 4))
    interval = [round(metrics["top1"][name], 4) for name in ("low", "high")]
    assert entry.metric_args == {
        "modality": "both", "views": 2, "interval": interval, "confidence": 0.95, "resampled": "video",
    }  # fmt: skip


def test_the_hub_accepts_the_card_and_reads_back_its_metadata(run, tmp_path, hub):
    folder = shutil.copytree(run, tmp_path / "run")
    made = make_model_card(read_card_facts(folder), repo_id="owner/clip-mg", tags=["mine"], datasets=["owner/data"])
    path = write_model_card(folder, repo_id="owner/clip-mg", tags=["mine"], datasets=["owner/data"])
    card = ModelCard.load(path)
    card.validate()
    assert card.data.to_dict() == made.data.to_dict() and card.text == made.text
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "video-classification",
        "apache-2.0",
    )
    assert data.model_name == "clip-mg" and "mine" in data.tags and data.datasets == ["owner/data"]
    repo_id = hub.repository("card")
    hub.api().create_repo(repo_id)
    hub.api().upload_file(path_or_fileobj=path, path_in_repo="README.md", repo_id=repo_id)
    info = hub.api().model_info(repo_id)
    assert info.card_data.to_dict() == made.data.to_dict()


def test_what_is_not_known_is_left_out_with_its_heading(run, tmp_path):
    for name in ("config.json", "processor_config.json"):
        shutil.copy(run / name, tmp_path / name)
    card = make_model_card(read_card_facts(tmp_path))
    assert list(sections(card)) == ["CLIP-MG", *HEADINGS]
    assert card.data.eval_results is None and "model-index" not in str(card)
    full = make_model_card(read_card_facts(run))
    for made in (card, full):
        assert all(text for name, text in sections(made).items() if name != "Results")
        assert not re.search(r"None|[Uu]nknown|More information|TODO|\{\{|\{%", made.text)
        assert "\n\n\n" not in str(made)
    assert (full.data.license, full.data.license_name) == ("apache-2.0", None)
    licensed = make_model_card(read_card_facts(tmp_path))
    assert (licensed.data.license, licensed.data.license_name) == ("other", "see-model-card")
    assert make_model_card(read_card_facts(tmp_path), license="mit").data.license == "mit"


def test_an_evaluation_of_other_weights_is_never_taken(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    config = CLIPMGConfig.from_pretrained(folder)
    CLIPMGForMicroGestureClassification(config).save_pretrained(folder)
    facts = read_card_facts(folder)
    assert facts.evaluations == ()
    with pytest.raises(DatasetFormatError, match="an evaluation of other weights"):
        read_card_facts(folder, [folder / "validation"])
    with pytest.raises(DatasetFormatError, match=r"metrics\.json: no such file"):
        read_card_facts(folder, [folder / "test"])
    # What Trainer measured is all that is left; it has no intervals.
    card = make_model_card(facts)
    top1 = json.loads((folder / "all_results.json").read_text())["eval_top1"]
    assert "without intervals" in card.text and f"| top-1 | {100 * top1:.1f} % |" in card.text
    assert card.data.eval_results[0].metric_args == {"views": 1}


def test_a_checkpoint_says_what_was_measured_after_its_step(run):
    checkpoint = max(run.glob("checkpoint-*"))
    step = int(checkpoint.name.rpartition("-")[2])
    card = ModelCard.load(checkpoint / "README.md")
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    top1 = next(entry["eval_top1"] for entry in history if entry["step"] == step and "eval_top1" in entry)
    assert f"| top-1 | {100 * top1:.1f} % |" in card.text
    assert f"| Steps | {step} of 2 planned" in card.text
    assert card.text == make_model_card(read_card_facts(checkpoint)).text


@pytest.mark.parametrize(
    ("values", "variant", "call"),
    [
        ({}, "full model", 'processor("clip.mp4", keypoints="openpose_json/")'),
        ({"fusion": "visual"}, "no pose: RGB alone", 'processor("clip.mp4")'),
        ({"fusion": "pose"}, "pose alone", 'processor(keypoints="openpose_json/")'),
        ({"fusion": "concat"}, "concatenation in place of the gate", None),
        ({"fusion": "sum"}, "sum in place of the gate", None),
        ({"use_semantic_attention": False}, "mean of the patches in place of attention", None),
        ({"query": "pose"}, "query of the pose alone", None),
        ({"query": "pose_pool"}, "query of the patches under the keypoints", None),
    ],
)
def test_ablations_have_their_name_and_their_way_of_use(tmp_path, values, variant, call):
    config = CLIPMGConfig(**{**TINY, **values})
    config.save_pretrained(tmp_path)
    CLIPMGProcessor.from_model_config(config).save_pretrained(tmp_path)
    assert describe_variant(config).startswith(variant)
    card = make_model_card(read_card_facts(tmp_path), repo_id="owner/name")
    assert f"Variant: {variant}" in card.text and (call is None or call in card.text)
    blocks = re.findall(r"```python\n(.*?)```", card.text, re.S)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
    assert 'trust_remote_code": True' in blocks[0] and "revision" in blocks[0] and "clipmg_hf" in blocks[1]
