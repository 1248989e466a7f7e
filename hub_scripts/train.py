"""Train CLIP-MG on a data set: the paper's model, its ablations, or another data set, by a configuration.

Command:  python hub_scripts/train.py hub_scripts/configs/imigue_full.yaml --data_dir DIR --output_dir runs/full
          accelerate launch --num_processes 4 hub_scripts/train.py CONFIG.yaml --name value ...
          python hub_scripts/train.py CONFIG.yaml --output_dir runs/full --resume_from_checkpoint last
          ... --background_share 0.1    # whole videos: clips of the gaps between gestures, as a further class
          ... --push_to_hub true --hub_model_id owner/name --hub_strategy checkpoint     # every save, whole
          ... --resume_from_checkpoint hub:owner/name     # on another machine, from what was pushed
Cost:     see the head of each configuration; hub_scripts/configs/synthetic.yaml runs on a laptop.
Expected: the run's folder holds the model, ready for `clipmg predict --model`, `experiment.json`,
          `trainer_state.json` and `all_results.json`. Run again with `--resume_from_checkpoint last`, a run that was
          killed goes on with the losses that it would have had; arguments that its result depends on may not change
          (see clipmg_hf/run_record.py). A prepared folder is a DIR like any other. `--help` lists all arguments.
"""

import sys

from clipmg_hf.arguments import make_parser, parse_arguments
from clipmg_hf.console import run
from clipmg_hf.experiment import prepare_experiment, run_experiment
from clipmg_hf.training import end_processes


def main() -> None:
    """Run the steps; unusable input ends with status 1 and one line."""
    words = sys.argv[1:]
    if not words or "--help" in words or "-h" in words:
        make_parser().print_help()
        return
    # 1. Read the configuration and what the command line changes in it.
    # 2. Load the data, build model and trainer, and check that they fit.
    experiment = prepare_experiment(parse_arguments(words))
    # 3. Train, evaluate, and save.
    metrics = run_experiment(experiment)
    # 4. Say how it went.
    if experiment.arguments.training.should_save:
        for name, value in sorted(metrics.items()):
            print(f"{name}: {value:.4g}")
    end_processes()


if __name__ == "__main__":
    run(main, interrupted="interrupted; to go on, run the same command with --resume_from_checkpoint last")
