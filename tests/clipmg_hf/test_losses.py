"""Losses against their formulas, computed slowly and by hand; the projection through Trainer and two processes."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, set_seed

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.losses import (
    ClassificationLoss,
    LossGradientCallback,
    LossSettings,
    class_weights,
    classification_losses,
    embedding_distances,
    hash_label_names,
    log_prior,
    read_label_embeddings,
)
from clipmg_hf.optimization import make_optimizer
from clipmg_hf.run_files import LOSS_FILE


NAMES = ["Touching hat", "Touching ears", "Folding arms", "Arms akimbo", "Head up"]
COUNTS = [50, 20, 8, 2, 1]


def batch(num_clips=7, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "logits": torch.randn(num_clips, len(NAMES), generator=generator, dtype=dtype) * 3,
        "fused_embedding": torch.randn(num_clips, 12, generator=generator, dtype=dtype),
    }
    return outputs, torch.randint(len(NAMES), (num_clips,), generator=generator)


def make_loss(**settings):
    return ClassificationLoss(LossSettings(**settings), COUNTS, NAMES, hidden_size=12)


def slow_loss(logits, label, weights, adjustment, gamma, epsilon):
    logits = [value + shift for value, shift in zip(logits, adjustment, strict=True)]
    total = sum(math.exp(value) for value in logits)
    shares = [math.exp(value) / total for value in logits]
    targets = [epsilon / len(shares) + (1 - epsilon) * (c == label) for c in range(len(shares))]
    cross_entropy = -sum(q * math.log(p) for q, p in zip(targets, shares, strict=True))
    return weights[label] * (1 - shares[label]) ** gamma * cross_entropy


def test_inverse_square_root_weights_by_hand(caplog):
    with caplog.at_level(logging.WARNING):
        weights = class_weights([1, 4, 16, 0])
    # 1, 1/2, 1/4 times 21 clips / (1 + 2 + 4)
    torch.testing.assert_close(weights, torch.tensor([3.0, 1.5, 0.75, 0.0]))
    assert "[3]" in caplog.text


def test_effective_number_weights_equal_the_formula():
    beta = 0.9
    raw = [(1 - beta) / (1 - beta**count) for count in COUNTS]
    scale = sum(COUNTS) / sum(count * weight for count, weight in zip(COUNTS, raw, strict=True))
    expected = torch.tensor([weight * scale for weight in raw])
    torch.testing.assert_close(class_weights(COUNTS, "effective_number", beta), expected)
    torch.testing.assert_close(class_weights(COUNTS, "effective_number", 0.0), torch.ones(5))


@pytest.mark.parametrize("scheme", ["inverse_sqrt", "effective_number"])
def test_the_mean_weight_over_the_clips_is_1(scheme):
    weights = class_weights([3000, 0, 70, 5], scheme)
    assert float((weights * torch.tensor([3000, 0, 70, 5])).sum()) / 3075 == pytest.approx(1.0)


def test_log_prior_by_hand():
    torch.testing.assert_close(log_prior([3, 1]), torch.tensor([0.75, 0.25]).log())
    assert log_prior([3, 0]).isfinite().all()


@pytest.mark.parametrize("counts", [[], [0, 0], [2, -1], [[1, 2]]])
def test_bad_counts_are_named(counts):
    with pytest.raises(ValueError, match="counts are"):
        class_weights(counts)


@pytest.mark.parametrize("num_items", [None, 20, torch.tensor(20)])
def test_without_options_it_is_the_loss_of_the_model(num_items):
    outputs, labels = batch()
    labels[2] = -100
    expected = F.cross_entropy(outputs["logits"], labels, reduction="mean" if num_items is None else "sum")
    expected = expected if num_items is None else expected / 20
    torch.testing.assert_close(make_loss()(outputs, labels, num_items_in_batch=num_items), expected)
    assert list(make_loss().parameters()) == []


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("tau", [0.0, 1.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_combination_equals_the_slow_formula(gamma, epsilon, tau, weighted):
    outputs, labels = batch()
    weights = class_weights(COUNTS).tolist() if weighted else [1.0] * 5
    adjustment = [tau * math.log(count / sum(COUNTS)) for count in COUNTS]
    expected = [
        slow_loss(logits, label, weights, adjustment, gamma, epsilon)
        for logits, label in zip(outputs["logits"].tolist(), labels.tolist(), strict=True)
    ]
    loss = make_loss(
        class_weighting="inverse_sqrt" if weighted else "none",
        focal_gamma=gamma,
        label_smoothing=epsilon,
        logit_adjustment=tau,
    )
    assert float(loss(outputs, labels)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_options_equal_those_of_torch():
    outputs, labels = batch()
    smoothed = F.cross_entropy(outputs["logits"], labels, label_smoothing=0.2)
    torch.testing.assert_close(make_loss(label_smoothing=0.2)(outputs, labels), smoothed)
    weighted = F.cross_entropy(outputs["logits"], labels, weight=class_weights(COUNTS), reduction="sum") / 7
    torch.testing.assert_close(make_loss(class_weighting="inverse_sqrt")(outputs, labels), weighted)


def test_logit_adjustment_by_hand():
    loss = ClassificationLoss(LossSettings(logit_adjustment=1.0), [3, 1], NAMES[:2], 12)
    value = loss({"logits": torch.zeros(1, 2)}, torch.tensor([1]))
    assert float(value) == pytest.approx(-math.log(0.25))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_equal_numeric_ones(gamma):
    outputs, labels = batch(dtype=torch.float64)
    labels[0] = -100
    logits = outputs["logits"].requires_grad_()
    weights, adjustment = class_weights(COUNTS).double(), log_prior(COUNTS).double()
    assert torch.autograd.gradcheck(
        lambda values: classification_losses(values, labels, weights, adjustment, gamma, 0.1), (logits,)
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_certain_clip_has_a_finite_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    losses = classification_losses(logits, torch.tensor([0, 0]), focal_gamma=gamma)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 200.0])
    assert logits.grad.isfinite().all()


def test_evaluation_is_plain_cross_entropy():
    outputs, labels = batch()
    loss = make_loss(
        class_weighting="inverse_sqrt",
        focal_gamma=2,
        logit_adjustment=1,
        label_smoothing=0.1,
        label_embedding_weight=1,
    ).eval()
    del outputs["fused_embedding"]
    torch.testing.assert_close(loss(outputs, labels), F.cross_entropy(outputs["logits"], labels))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"class_weighting": "effective_number", "focal_gamma": 1.0, "logit_adjustment": 1.0, "label_smoothing": 0.1},
        {"label_embedding_weight": 0.5},
        {"label_embedding_weight": 0.5, "label_embedding_distance": "mse", "class_weighting": "inverse_sqrt"},
    ],
)
def test_accumulated_batches_add_up_to_the_large_batch(settings):
    outputs, labels = batch(8)
    logits, embedding = outputs["logits"].requires_grad_(), outputs["fused_embedding"].requires_grad_()
    loss = make_loss(**settings)
    leaves = [logits, *([embedding] if loss.projection is not None else []), *loss.parameters()]
    whole = torch.autograd.grad(loss(outputs, labels), leaves)
    for leaf in leaves:
        leaf.grad = None
    for part in (slice(0, 3), slice(3, 8)):
        sliced = {name: values[part] for name, values in outputs.items()}
        loss(sliced, labels[part], num_items_in_batch=torch.tensor(8)).backward()
    for leaf, expected in zip(leaves, whole, strict=True):
        torch.testing.assert_close(leaf.grad, expected)


def test_low_precision_logits_give_a_float32_loss():
    outputs, labels = batch()
    exact = {name: values.bfloat16().float() for name, values in outputs.items()}
    loss = make_loss(focal_gamma=1.0, label_embedding_weight=0.1)
    value = loss({name: values.bfloat16() for name, values in outputs.items()}, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(exact, labels))


def test_hashed_names_are_pinned_and_shared_words_bring_names_together():
    rows = hash_label_names(["Touching hat", "touching or the ears", "Folding arms", "hat, touching!"], 2048)
    assert rows.shape == (4, 2048)
    # The bits of SHAKE-256 of "folding" and "arms" must be the same on every machine.
    assert rows[2, :16].tolist() == [-2, 0, 0, -2, 0, 0, -2, -2, -2, 0, 2, -2, 2, -2, 0, 0]
    similarity = F.cosine_similarity(rows[0], rows[1:])
    assert float(similarity[0]) == pytest.approx(0.5, abs=0.1)
    assert abs(float(similarity[1])) < 0.1
    assert float(similarity[2]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"Label 1 is ' \?'"):
        hash_label_names(["Hat", " ?"])


def test_distances_by_hand():
    projected, targets = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [-2.0, 0.0]])
    torch.testing.assert_close(embedding_distances(projected, targets, "cosine"), torch.tensor([1 - 24 / 25, 2.0]))
    torch.testing.assert_close(embedding_distances(projected, targets, "mse"), torch.tensor([1.0, 4.5]))


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_label_embedding_loss_equals_its_formula(distance):
    outputs, labels = batch()
    labels[3] = -100
    loss = make_loss(label_embedding_weight=0.3, label_embedding_distance=distance)
    targets = F.normalize(hash_label_names(NAMES), dim=1) * 16
    expected = F.cross_entropy(outputs["logits"], labels, reduction="sum")
    for embedding, label in zip(outputs["fused_embedding"], labels.tolist(), strict=True):
        if label >= 0:
            projected = (loss.projection @ embedding).detach()
            if distance == "cosine":
                value = 1 - projected @ targets[label] / projected.norm() / targets[label].norm()
            else:
                value = ((projected - targets[label]) ** 2).mean()
            expected = expected + 0.3 * value
    torch.testing.assert_close(loss(outputs, labels), expected / 6)
    del outputs["fused_embedding"]
    with pytest.raises(ValueError, match="output_explanation=True"):
        loss(outputs, labels)


def test_training_the_projection_pulls_clips_to_their_classes():
    outputs, labels = batch()
    loss = make_loss(label_embedding_weight=1.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(outputs, labels)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.5


def test_the_projection_starts_alike_and_draws_nothing_from_the_global_generator(tmp_path):
    torch.manual_seed(1)
    first = make_loss(label_embedding_weight=1.0)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first.projection, make_loss(label_embedding_weight=1.0).projection)

    torch.nn.init.ones_(first.projection)
    first.save_projection(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOSS_FILE]
    second = make_loss(label_embedding_weight=1.0)
    second.load_projection(tmp_path)
    assert torch.equal(second.projection, first.projection)
    with pytest.raises(FileNotFoundError, match="without the label-embedding loss"):
        second.load_projection(tmp_path / "other")
    make_loss().load_projection(tmp_path / "other")


def test_label_embeddings_are_read_from_both_formats(tmp_path):
    embeddings = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    save_file({"text": embeddings.half()}, tmp_path / "labels.safetensors")
    np.save(tmp_path / "labels.npy", embeddings.double().numpy())
    torch.testing.assert_close(read_label_embeddings(tmp_path / "labels.npy", 5), embeddings)
    torch.testing.assert_close(
        read_label_embeddings(tmp_path / "labels.safetensors", 5), embeddings, atol=1e-2, rtol=1e-2
    )
    loss = make_loss(label_embedding_weight=1.0, label_embedding_file=str(tmp_path / "labels.npy"))
    assert loss.projection.shape == (6, 12)
    torch.testing.assert_close(loss.targets.square().mean(dim=1), torch.ones(5))


def write_two_tensors(path):
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda path: np.save(path, np.ones((4, 3))), r"an array \(4, 3\); expected \(num_labels=5, width\)"),
        ("a.npy", lambda path: np.save(path, np.diag([1, 1, 0, 1, np.inf])), r"rows \[2, 4\] are 0 or not"),
        ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        ("a.npy", lambda path: path.write_bytes(b""), "cannot be read"),
        ("a.safetensors", lambda path: path.write_bytes(b"no header"), "cannot be read"),
        ("a.safetensors", write_two_tensors, r"\['a', 'b'\]; expected exactly one"),
        ("a.txt", lambda path: path.write_text("1"), r"from \.safetensors or \.npy"),
    ],
)
def test_unusable_label_embeddings_are_named(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(DatasetFormatError, match=message) as caught:
        read_label_embeddings(tmp_path / name, 5)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weighting": "linear"}, "class_weighting is 'linear'; expected one of none, inverse_sqrt"),
        ({"label_embedding_distance": "l1"}, "expected one of cosine, mse"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1\.0"),
        ({"effective_number_beta": 1.0}, r"effective_number_beta is 1\.0"),
        ({"focal_gamma": -1.0}, r"focal_gamma is -1\.0"),
        ({"logit_adjustment": math.nan}, "logit_adjustment is nan"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LossSettings(**settings)


def test_labels_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"labels \(7, 5\) for logits \(7, 5\)"):
        make_loss()(batch()[0], torch.zeros(7, 5))
    with pytest.raises(ValueError, match="counts of 2 classes and names of 5"):
        ClassificationLoss(LossSettings(), [1, 2], NAMES, 12)


class TrainerWithLoss(Trainer):
    """How the loss is wired: device, mode, fused embedding, group, gradient and checkpoint of the projection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compute_loss_func.to(self.args.device)
        self.add_callback(LossGradientCallback(self.compute_loss_func))

    def compute_loss(self, model, inputs, **kwargs):
        self.compute_loss_func.train(model.training)
        if model.training and self.compute_loss_func.projection is not None:
            inputs = {**inputs, "output_explanation": True}
        return super().compute_loss(model, inputs, **kwargs)

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            model = self.model if model is None else model
            self.optimizer = make_optimizer(model, self.args, loss=self.compute_loss_func)
        return self.optimizer

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.compute_loss_func.save_projection(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.compute_loss_func.load_projection(checkpoint)


def train(output_dir, resume=None, **values):
    set_seed(0)
    config = CLIPMGConfig(
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"image_size": 16, "patch_size": 8},
        num_frames=1,
        pose_frames_per_frame=1,
        hidden_size=16,
        num_attention_heads=2,
        # Without dropout and batch norms, whose draws and statistics differ between batches by nature.
        fusion="visual",
        hidden_dropout_prob=0.0,
        attention_dropout=0.0,
        classifier_dropout=0.0,
        id2label=dict(enumerate(NAMES)),
    )
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"pixel_values": torch.randn(1, 3, 16, 16, generator=generator), "labels": torch.tensor(index % 5)}
        for index in range(16)
    ]
    settings = LossSettings(class_weighting="inverse_sqrt", focal_gamma=1.0, label_embedding_weight=1.0)
    arguments = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_steps": 3,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "label_names": ["labels"],
        **values,
    }
    trainer = TrainerWithLoss(
        CLIPMGForMicroGestureClassification(config),
        TrainingArguments(output_dir=str(output_dir), **arguments),
        train_dataset=rows,
        eval_dataset=rows,
        compute_loss_func=ClassificationLoss(settings, COUNTS, NAMES, config.hidden_size),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_projection_trains_and_resumes_with_trainer(tmp_path):
    whole, losses = train(tmp_path / "whole")
    start = ClassificationLoss(whole.compute_loss_func.settings, COUNTS, NAMES, 16).projection
    assert not torch.equal(whole.compute_loss_func.projection, start)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert set(load_file(checkpoint / "model.safetensors")) == set(whole.model.state_dict())
    assert set(load_file(checkpoint / LOSS_FILE)) == {"projection"}

    resumed, resumed_losses = train(tmp_path / "resumed", resume=str(checkpoint))
    assert resumed_losses[-5:] == pytest.approx(losses[-5:], abs=1e-6)
    torch.testing.assert_close(resumed.compute_loss_func.projection, whole.compute_loss_func.projection)

    logits = whole.predict(whole.eval_dataset)
    expected = F.cross_entropy(torch.tensor(logits.predictions), torch.tensor(logits.label_ids))
    assert logits.metrics["test_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_trainer_accumulates_gradients_to_those_of_a_larger_batch(tmp_path):
    curves = [
        train(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=3)[1]
        for size, steps in ((4, 1), (2, 2))
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def gradient_in_a_process(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outputs, labels = batch(8)
    part = slice(0, 3) if rank == 0 else slice(3, 8)
    loss = make_loss(label_embedding_weight=1.0)
    sliced = {name: values[part] for name, values in outputs.items()}
    # Trainer multiplies by the processes, over whose gradients the average is taken.
    (loss(sliced, labels[part], num_items_in_batch=8) * 2).backward()
    (folder / f"{rank}.json").write_text(json.dumps(loss.projection.grad.tolist()))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradient_of_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(gradient_in_a_process, args=(tmp_path,), nprocs=2)
    outputs, labels = batch(8)
    loss = make_loss(label_embedding_weight=1.0)
    loss(outputs, labels).backward()
    for rank in range(2):
        gradient = torch.tensor(json.loads((tmp_path / f"{rank}.json").read_text()))
        torch.testing.assert_close(gradient, loss.projection.grad)
