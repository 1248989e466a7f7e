"""Raw videos, Parquet, stored JPEG frames, tar files and streams give a training run the same first batch."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from clipmg_hf.data import (
    ClipDataset,
    ClipTransform,
    collate_clips,
    load_imigue,
    load_prepared,
    prepare_dataset,
    stream_clips,
)
from clipmg_hf.data.prepare import PrepareConfig
from clipmg_hf.data.synthetic_layouts import write_layout
from clipmg_hf.training import make_trainer


# At high quality, compression changes less than a shift of one frame does.
FORMS = {
    "h264": PrepareConfig(quality=1),
    "mjpeg": PrepareConfig(codec="mjpeg", quality=2),
    "tar": PrepareConfig(storage="webdataset", quality=1),
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """The training rows of one data set in every storage form. Its frames are too small to be scaled."""
    root = tmp_path_factory.mktemp("forms")
    raw = load_imigue(write_layout(root / "miga", "miga"), cache_dir=root / "cache")
    for name, config in FORMS.items():
        prepare_dataset(raw, root / name, config, show_progress=False)
    prepared = {name: load_prepared(root / name, cache_dir=root / "cache")["train"] for name in FORMS}
    return {"raw": raw["train"], **prepared, "root": root}


def first_batch(rows, processor, **options):
    items = ClipDataset(rows, processor, augment=True, seed=3, **options)
    generator = torch.Generator().manual_seed(0)
    return next(iter(DataLoader(items, batch_size=6, shuffle=True, generator=generator, collate_fn=collate_clips)))


def mean_difference(one, other):
    return float((one["pixel_values"] - other["pixel_values"]).abs().mean())


def shifted(rows, shift):
    """The same clips, read `shift` frames later."""
    columns = {name: np.array(rows[name]) + shift for name in ("start_frame", "end_frame")}
    kept = rows.remove_columns(list(columns))
    for name, values in columns.items():
        kept = kept.add_column(name, values, feature=rows.features[name])
    return kept


@pytest.mark.parametrize("form", ["h264", "mjpeg"])
def test_prepared_clips_differ_from_raw_ones_by_compression_alone(forms, loaded, form):
    raw, prepared = (first_batch(forms[name], loaded[1]) for name in ("raw", form))
    assert set(prepared) == set(raw)
    for name in set(raw) - {"pixel_values"}:
        torch.testing.assert_close(prepared[name], raw[name], rtol=0, atol=1e-6)
    error = mean_difference(prepared, raw)
    assert error < 0.05  # 3 of 255 grey levels, after CLIP's normalisation
    for shift in (-1, 1):
        assert error < 0.8 * mean_difference(prepared, first_batch(shifted(forms["raw"], shift), loaded[1]))


def test_parquet_tar_and_streams_are_equal(forms, loaded):
    parquet, tar = (first_batch(forms[name], loaded[1]) for name in ("h264", "tar"))
    for name, tensor in parquet.items():
        assert torch.equal(tensor, tar[name]), name
    items = ClipDataset(forms["h264"], loaded[1])
    for form in ("h264", "tar"):
        stream = stream_clips(load_prepared(forms["root"] / form, streaming=True)["train"], ClipTransform(loaded[1]))
        for index, item in enumerate(stream.take(4)):
            for name, tensor in items[index].items():
                assert torch.equal(torch.as_tensor(item[name]), tensor), (form, name)


@pytest.mark.parametrize("form", ["raw", "h264", "mjpeg", "tar"])
def test_every_form_can_be_trained_on(forms, loaded, tmp_path, form):
    model, processor = loaded
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = make_trainer(model, processor, forms[form], forms[form], args)
    assert trainer.train().training_loss > 0
