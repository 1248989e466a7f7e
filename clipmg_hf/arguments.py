"""Arguments of a training run: dataclasses for transformers' HfArgumentParser, a configuration file, and overrides.

    arguments = parse_arguments(["hub_scripts/configs/smg.yaml", "--data_dir", "/data/smg", "--max_steps", "100"])

A configuration is YAML or JSON, flat or with one level of sections, whose names are for the reader alone. `base` names
another file, relative to it, whose values it replaces. What is given on the command line wins over both; `null` takes
a value back. An option that would have no effect is an error. The fields of the model's configuration and of the
processor are read from these classes: there is no second list of them.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import yaml
from transformers import HfArgumentParser, TrainingArguments

from clipmg_hf.feature_cache import Precision
from clipmg_hf.losses import LossSettings
from clipmg_hf.modeling import CLIPMGConfig
from clipmg_hf.processing import CLIPMGProcessor


# Set from the data, or not at all.
_PROCESSOR_INPUTS = ("self", "video_processor", "keypoint_layout")
NO_VALUE = ("null", "none")
BASE = "base"


@dataclass
class ModelArguments:
    """Where the model starts: from CLIP, from one of our checkpoints, or (with neither) from random weights."""

    stage: Literal["joint", "pose"] = field(
        default="joint", metadata={"help": "'pose' trains the pose encoder alone: fusion='pose', no vision tower."}
    )
    clip_checkpoint: str | None = field(
        default=None, metadata={"help": "Name or folder of a CLIP checkpoint to take the vision tower from."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "One of our checkpoints to continue from; its processor is used."}
    )
    pose_checkpoint: str | None = field(
        default=None,
        metadata={"help": "Pose encoder to start from: folder of a stage 'pose' run, or a PYSKL/mmaction2 .pth."},
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA on the vision tower; 0 for none."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of LoRA; twice the rank by default."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout in front of the adapters."})
    lora_targets: str = field(
        default="q_proj,v_proj", metadata={"help": "Projections of the tower's blocks that get adapters."}
    )
    freeze_batch_norm: bool = field(
        default=False, metadata={"help": "The pose encoder's batch norms keep their statistics; see CLIPMGTrainer."}
    )


@dataclass
class DataArguments:
    """Which clips to train and evaluate on."""

    data_dir: str | None = field(default=None, metadata={"help": "Folder of the data set, prepared or not."})
    dataset: Literal["auto", "imigue", "smg", "ma52", "prepared"] = field(
        default="auto", metadata={"help": "Which one it must be; 'auto' goes by its files."}
    )
    dataset_configuration: str = field(
        default="classification", metadata={"help": "'classification', or 'emotion' where the data has it."}
    )
    protocol: str | None = field(default=None, metadata={"help": "How to split; the official way by default."})
    validation: float | None = field(
        default=None, metadata={"help": "Share of the training clips, by subject, to validate on."}
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of that choice."})
    fold: int | None = field(default=None, metadata={"help": "With protocol='folds': the fold that validates."})
    background_share: float = field(
        default=0.0,
        metadata={
            "help": "Clips of the gaps between gestures, as a class 'Background': so many for each gesture, as 0.1."
        },
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    max_train_clips: int | None = field(default=None, metadata={"help": "Train on the first so many clips."})
    max_eval_clips: int | None = field(default=None, metadata={"help": "Evaluate on the first so many clips."})
    missing_keypoints: Literal["error", "mask"] = field(
        default="error", metadata={"help": "What to do about points that the data's layout lacks."}
    )
    data_cache_dir: str | None = field(default=None, metadata={"help": "Where the converted data lies."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that convert the data."})
    clip_cache: str | None = field(
        default=None, metadata={"help": "Folder for processed clips: those of the evaluation are decoded once."}
    )
    feature_cache: str | None = field(
        default=None, metadata={"help": "Folder for the features of a frozen tower: it runs once for each view."}
    )
    feature_views: int = field(
        default=0, metadata={"help": "With feature_cache: fixed random training views; 0 needs augment=false."}
    )
    feature_precision: Precision = field(default="float16", metadata={"help": "Of the kept features."})
    augment: bool = field(default=True, metadata={"help": "Random training views; see the processor's augmentation."})


@dataclass
class OptimizationArguments:
    """What is ours in the optimization; the rest are TrainingArguments."""

    pose_encoder_factor: float | None = field(
        default=None,
        metadata={"help": "Learning rate relative to learning_rate; 0.1 for a trained pose encoder, 1 for a new one."},
    )
    vision_factor: float = field(default=0.1, metadata={"help": "The same, of unfrozen layers of the tower."})
    lora_factor: float = field(default=1.0, metadata={"help": "The same, of LoRA's adapters."})
    head_factor: float = field(default=1.0, metadata={"help": "The same, of the classifier."})
    balanced_sampling: float = field(
        default=0.0, metadata={"help": "0 draws clips as they are, 1 all classes equally often."}
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many evaluations without a new best; 0 never."}
    )


def _optional_field(name: str, kind: Any, help_text: str) -> tuple[str, Any, Any]:
    return name, kind | None, field(default=None, metadata={"help": help_text})


def _config_field(name: str) -> tuple[str, Any, Any]:
    """A field of the model's configuration as an argument without a default of its own."""
    declared = CLIPMGConfig.__annotations__[name]
    choices = get_origin(declared) is Literal
    members = set(get_args(declared)) or {declared}
    if choices:
        kind: Any = declared
    elif float in members:
        kind = float
    elif any(get_origin(member) in (list, tuple) for member in members):
        kind = list[int]
    elif dict[str, Any] in members:
        kind = str
    else:
        kind = declared
    return _optional_field(name, kind, "Field of CLIPMGConfig.")


def _processor_field(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    """An argument of the processor, of the type of its default."""
    default = parameter.default
    if isinstance(default, tuple | list):
        kind: Any = list[float]
    elif isinstance(default, bool) or not isinstance(default, int | float):
        kind = str if default is None else type(default)
    else:
        kind = float
    return _optional_field(parameter.name, kind, f"Of CLIPMGProcessor, {default} by default.")


_PROCESSOR_PARAMETERS = [
    parameter
    for name, parameter in inspect.signature(CLIPMGProcessor.__init__).parameters.items()
    if name not in _PROCESSOR_INPUTS
]
ConfigArguments = make_dataclass("ConfigArguments", [_config_field(name) for name in CLIPMGConfig.__annotations__])
ConfigArguments.__doc__ = "Fields of CLIPMGConfig; `None` leaves the default, or the checkpoint's value."
ProcessorArguments = make_dataclass("ProcessorArguments", [_processor_field(p) for p in _PROCESSOR_PARAMETERS])
ProcessorArguments.__doc__ = "Arguments of CLIPMGProcessor; `None` leaves the default."
LossArguments = make_dataclass(
    "LossArguments", [(f.name, f.type, field(default=f.default)) for f in fields(LossSettings)]
)
LossArguments.__doc__ = "Fields of LossSettings."


@dataclass(frozen=True)
class ExperimentArguments:
    """Everything that a run depends on.

    Args:
        model, data, optimization: See the classes.
        config (`dict`): Given fields of [`CLIPMGConfig`].
        processor (`dict`): Given arguments of [`CLIPMGProcessor`].
        loss ([`LossSettings`]): The training loss.
        training (`TrainingArguments`): The library's.
        given (`dict`): What file and command line said, for the run's record.
    """

    model: ModelArguments
    data: DataArguments
    optimization: OptimizationArguments
    config: dict[str, Any]
    processor: dict[str, Any]
    loss: LossSettings
    training: TrainingArguments
    given: dict[str, Any]


_CLASSES: tuple[Any, ...] = (
    ModelArguments,
    DataArguments,
    OptimizationArguments,
    ConfigArguments,
    ProcessorArguments,
    LossArguments,
    TrainingArguments,
)


def make_parser() -> HfArgumentParser:
    """The parser of all arguments, for `--help` and for the types."""
    return HfArgumentParser(
        cast(Any, _CLASSES),
        usage="%(prog)s [CONFIG.yaml] [--name value ...]",
        allow_abbrev=False,
    )


def parse_arguments(command_line: Sequence[str]) -> ExperimentArguments:
    """Read a command line: a configuration file, if the first word is none of the options, and overrides.

    Raises:
        ValueError: A key is unknown (the message names the nearest one) or a value is not of its type.
        FileNotFoundError: There is no such file.
    """
    words = list(command_line)
    given: dict[str, Any] = {}
    if words and not words[0].startswith("--"):
        given = read_config(words.pop(0))
    given |= read_overrides(words)
    return build_arguments({name: value for name, value in given.items() if value is not None})


def build_arguments(given: Mapping[str, Any]) -> ExperimentArguments:
    """Check names and types of values.

    Raises:
        ValueError: See [`parse_arguments`].
    """
    known = [f.name for kind in _CLASSES for f in fields(kind) if f.init]
    check_names(given, known, "arguments")
    parser = make_parser()
    # A parser ends the process by default.
    parser.error = _raise_value_error  # type: ignore[method-assign,assignment]
    parsed = parser.parse_args_into_dataclasses(args=_to_words(given))
    model, data, optimization, config, processor, loss, training = parsed
    arguments = ExperimentArguments(
        model=model,
        data=data,
        optimization=optimization,
        config=_read_config_fields(config),
        processor=_read_processor_fields(processor),
        loss=LossSettings(**dataclasses.asdict(loss)),
        training=training,
        given=dict(given),
    )
    check_effects(arguments)
    return arguments


def check_effects(arguments: ExperimentArguments) -> None:
    """Raise a ValueError for options that would have no effect without another one.

    An option at its default is no request. What only a model tells, such as whether it has a pose encoder, is checked
    once there is one. Ablations drop a part of a configuration and keep the learning rate of that part: of
    `pose_encoder_factor` and `vision_factor` nothing is said, nor of a `clip_checkpoint` with fusion='pose'.
    """
    model, data, optimization, loss = arguments.model, arguments.data, arguments.optimization, arguments.loss
    has_lora, lora = model.lora_rank > 0, "a lora_rank above 0"
    has_embeddings, weighting = loss.label_embedding_weight > 0, loss.class_weighting
    embedding_options = ("label_embedding_distance", "label_embedding_file")
    conditions: list[tuple[bool, str, Any, tuple[str, ...]]] = [
        (data.feature_cache is not None, "a feature_cache", data, ("feature_views", "feature_precision")),
        (data.protocol == "folds", "protocol='folds'", data, ("fold",)),
        (has_lora, lora, model, ("lora_alpha", "lora_dropout", "lora_targets")),
        (has_lora, lora, optimization, ("lora_factor",)),
        (weighting == "effective_number", "class_weighting='effective_number'", loss, ("effective_number_beta",)),
        (has_embeddings, "a label_embedding_weight above 0", loss, embedding_options),
    ]
    problems = [
        f"{name}={getattr(group, name)!r} has no effect without {condition}"
        for has_effect, condition, group, names in conditions
        for name in names
        if not has_effect and getattr(group, name) != getattr(type(group)(), name)
    ]
    if model.clip_checkpoint is not None and "vision_config" in arguments.config:
        problems.append("vision_config has no effect with a clip_checkpoint, whose own it is")
    if problems:
        raise ValueError(f"arguments: {'; '.join(problems)}.")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON file, and the one that it names as its `base`, to one flat dictionary.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no mapping, is no YAML, or gives a name twice; or its base has a base.
    """
    path = Path(path)
    values = _read_file(path)
    if BASE not in values:
        return values
    base = path.parent / str(values.pop(BASE))
    base_values = _read_file(base)
    if BASE in base_values:
        raise ValueError(f"{path} has the base {base}, which has a base itself; expected a file without one.")
    return base_values | values


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no configuration {path}; expected a .yaml or .json file, then --name value."
        )
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected names and values.")
    known = {BASE, *(f.name for kind in _CLASSES for f in fields(kind) if f.init)}
    flat: dict[str, Any] = {}
    for name, value in content.items():
        # A section is a mapping whose name is no argument.
        section = value if isinstance(value, dict) and name not in known else {name: value}
        if repeated := sorted(section.keys() & flat.keys()):
            raise ValueError(f"{path} gives {', '.join(repeated)} twice.")
        flat |= section
    check_names(flat, known, str(path))
    return flat


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read `--name value`, `--name=value`, `--name first second` and `--name` alone (true).

    Raises:
        ValueError: A word belongs to no name.
    """
    values: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, is_pair, value = word[2:].partition("=")
            values[name] = [value] if is_pair else []
        elif name is None:
            raise ValueError(f"{word!r} belongs to no argument; expected --name value.")
        else:
            values[name].append(word)
    overrides: dict[str, Any] = {}
    for name, found in values.items():
        if not found:
            overrides[name] = "true"
        elif len(found) == 1:
            overrides[name] = None if found[0].lower() in NO_VALUE else found[0]
        else:
            overrides[name] = found
    return overrides


def check_names(given: Mapping[str, Any], known: Sequence[str] | set[str], where: str) -> None:
    """Raise a ValueError for names that are no arguments; it names the nearest one of each."""
    problems = []
    for name in given:
        if name not in known:
            nearest = get_close_matches(str(name), list(known), 1, cutoff=0.5)
            problems.append(f"{name}" + (f" (did you mean {nearest[0]}?)" if nearest else ""))
    if problems:
        raise ValueError(f"{where}: unknown {', '.join(problems)}; see --help.")


def _raise_value_error(message: str) -> None:
    raise ValueError(message)


def _to_words(given: Mapping[str, Any]) -> list[str]:
    """Values as a command line, so that file and command line are read by the same rules."""
    words = []
    for name, value in given.items():
        if isinstance(value, dict):
            words.append(f"--{name}={json.dumps(value)}")
        elif isinstance(value, list | tuple):
            words += [f"--{name}", *(str(entry) for entry in value)]
        else:
            words.append(f"--{name}={value}")
    return words


def _read_config_fields(arguments: Any) -> dict[str, Any]:
    values = {name: value for name, value in vars(arguments).items() if value is not None}
    if "vision_config" in values:
        try:
            values["vision_config"] = json.loads(values["vision_config"])
        except ValueError as error:
            raise ValueError(f"vision_config is {values['vision_config']!r}; expected a mapping ({error}).") from error
    return values


def _read_processor_fields(arguments: Any) -> dict[str, Any]:
    """Given values; numbers whose default is whole stay whole."""
    values = {name: value for name, value in vars(arguments).items() if value is not None}
    for parameter in _PROCESSOR_PARAMETERS:
        if parameter.name in values and type(parameter.default) is int and values[parameter.name].is_integer():
            values[parameter.name] = int(values[parameter.name])
    return values


__all__ = [
    "DataArguments",
    "ExperimentArguments",
    "ModelArguments",
    "OptimizationArguments",
    "build_arguments",
    "check_effects",
    "make_parser",
    "parse_arguments",
    "read_config",
]
