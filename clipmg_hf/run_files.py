"""Names of the files of a run's folder; those of a checkpoint alone are in `modeling/checkpoint_files_clipmg.py`."""

from clipmg_hf.modeling.checkpoint_files_clipmg import CARD_FILE, OTHER_PARTS, REQUIREMENTS_FILE


EXPERIMENT_FILE = "experiment.json"
STATE_FILE = "trainer_state.json"
RESULTS_FILE = "all_results.json"
TRAINING_ARGUMENTS_FILE = "training_args.bin"
LOSS_FILE = "classification_loss.safetensors"
LOG_FILE = "log.txt"
ADAPTER_FOLDER, BASE_FOLDER, EVALUATION_FOLDER = "adapter", "base", "evaluation"
# On the Hub; see `clipmg_hf.hub_runs`.
LAST_CHECKPOINT, BEST_CHECKPOINT = "last-checkpoint", "best-checkpoint"
# Of what is being written. Uploads of the library leave out what starts with an underscore.
PARTIAL_PREFIX = "_partial-"
# What a run needs to go on, beside its weights; sharded training writes folders of the optimizer.
RESUME_FILES = {"optimizer": "optimizer*", "scheduler": "scheduler.pt", "random numbers": "rng_state*.pth"}
# What training leaves beside a checkpoint: pickles, the state to resume from, and records that name local paths.
BY_PRODUCTS = (
    *(TRAINING_ARGUMENTS_FILE, STATE_FILE, EXPERIMENT_FILE, "*_results.json", LOG_FILE, LOSS_FILE),
    *(*RESUME_FILES.values(), "scaler.pt"),
)
# The files that a model consists of, with what tells of its run.
MODEL_FILES = ("*.safetensors", "*.json", REQUIREMENTS_FILE, CARD_FILE, *OTHER_PARTS)


__all__ = [
    "ADAPTER_FOLDER",
    "BASE_FOLDER",
    "BEST_CHECKPOINT",
    "BY_PRODUCTS",
    "EVALUATION_FOLDER",
    "EXPERIMENT_FILE",
    "LAST_CHECKPOINT",
    "LOG_FILE",
    "LOSS_FILE",
    "MODEL_FILES",
    "PARTIAL_PREFIX",
    "RESULTS_FILE",
    "RESUME_FILES",
    "STATE_FILE",
    "TRAINING_ARGUMENTS_FILE",
]
