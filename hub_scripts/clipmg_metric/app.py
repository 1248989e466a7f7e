"""The Space's page: paste predictions and labels, read the metrics."""

import json
from pathlib import Path
from typing import Any

import evaluate
import gradio


FOLDER = Path(__file__).parent
metric = evaluate.load(str(FOLDER / "clipmg_metric.py"))


def compute(predictions: str, references: str, video_ids: str, groups: str, tables: bool) -> dict[str, Any]:
    """Compute the metrics of JSON lists; a bad input is shown to the user."""
    texts = {"predictions": predictions, "references": references, "video_ids": video_ids, "groups": groups}
    try:
        inputs = {name: json.loads(text) for name, text in texts.items() if text.strip()}
        return metric.compute(**inputs, tables=tables)
    except ValueError as error:
        raise gradio.Error(str(error)) from error


def build() -> gradio.Interface:
    """The page, with an example and the README below the form."""
    return gradio.Interface(
        compute,
        [
            gradio.Textbox(label="predictions: JSON list of each clip's scores, or classes"),
            gradio.Textbox(label="references: JSON list of classes"),
            gradio.Textbox(label="video_ids: JSON list of names (optional)"),
            gradio.Textbox(label="groups: JSON list of the body part of each class (optional)"),
            gradio.Checkbox(label="tables of classes and groups, and the confusion matrix"),
        ],
        gradio.JSON(label="metrics"),
        examples=[
            [
                "[[2.0, 0.5, 0.1], [0.3, 0.2, 1.5], [0.9, 1.0, 0.0]]",
                "[0, 2, 0]",
                '["0001", "0001", "0002"]',
                '["head", "head", "hand"]',
                True,
            ]
        ],
        title="Micro-gesture metrics",
        description=metric.description,
        article=(FOLDER / "README.md").read_text(encoding="utf-8").split("---", 2)[2],
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
