"""Fine-tuning CLIP-MG with transformers' Trainer."""

import dataclasses

import datasets
from transformers import Trainer, TrainingArguments

from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.metrics import compute_metrics
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification
from clipmg_hf.processing import CLIPMGProcessor


def make_trainer(
    model: CLIPMGForMicroGestureClassification,
    processor: CLIPMGProcessor,
    train_rows: datasets.Dataset,
    eval_rows: datasets.Dataset,
    args: TrainingArguments,
) -> Trainer:
    """Wire model, processor and rows to a Trainer.

    Args:
        model, processor: Must agree on frames and keypoints; see [`CLIPMGProcessor.from_model_config`].
        train_rows, eval_rows (`datasets.Dataset`): Rows as [`load_imigue`] gives them; training views are augmented.
        args (`TrainingArguments`): Its `remove_unused_columns` and `label_names` are set to what the model needs.

    Returns:
        `transformers.Trainer` that reports top-1, top-5, mean class accuracy and macro F1, and saves the processor
        into every checkpoint.
    """
    args = dataclasses.replace(args, remove_unused_columns=False, label_names=["labels"])
    return Trainer(
        model,
        args,
        train_dataset=ClipDataset(train_rows, processor, augment=True),
        eval_dataset=ClipDataset(eval_rows, processor),
        data_collator=collate_clips,
        compute_metrics=compute_metrics,
        processing_class=processor,
    )


__all__ = ["make_trainer"]
