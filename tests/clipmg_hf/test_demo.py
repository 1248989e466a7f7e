"""The demo's whole path, in small: what `make demo` promises to write is there and agrees with itself."""

import json

import numpy as np

from clipmg_hf.demo import FULL_MODEL, NO_POSE, DemoArguments, run_demo


def test_the_demo_runs_end_to_end(tmp_path):
    output = tmp_path / "demo"
    args = DemoArguments(
        output_dir=str(output), max_steps=4, num_views=1, num_workers=1, num_train_subjects=1, num_validate_subjects=1
    )
    metrics = run_demo(args)
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert set(metrics["results"]) == {"constant prediction", NO_POSE, FULL_MODEL}
    assert np.sum(metrics["confusion_matrix"]) == metrics["validation_clips"] == 12
    assert metrics["confusion_matrix"] != np.zeros_like(metrics["confusion_matrix"]).tolist()
    for name in ("learning_curves.png", "confusion_matrix.png", "overlay.png", "overlay.mp4"):
        assert (output / name).stat().st_size > 1000
    files = {path.name for path in (output / "checkpoint").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_clipmg.py"} <= files
    assert all(0 < example["score"] <= 1 for example in metrics["examples"])
