"""Make the timelines of many videos on many processes and machines, each video on one of them.

Command:  accelerate launch --num_processes 4 hub_scripts/timeline.py --videos DIR --model runs/full --output_dir OUT
          ... --keypoints DIR              # an entry for each video; or --pose vitpose
          accelerate launch --num_machines 2 --machine_rank 0 --main_process_ip HOST ... hub_scripts/timeline.py ...
          python hub_scripts/timeline.py ...                                  # one process
Cost:     videos are dealt out by size before the start. Nobody waits for anybody before the end.
Expected: OUT/NAME/ with the files of each video, as `clipmg timeline` writes them, and a table of all videos. After a
          kill the same command goes on: finished videos are left alone, begun ones go on at their last window. Ends
          with status 1 if a video failed. Processes on several machines need OUT on a disk that they share.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.timeline_job import find_videos, plan_jobs, run_share
from clipmg_hf.timeline_options import TimelineOptions
from clipmg_hf.timeline_outcomes import exit_status, print_outcomes


@dataclass
class TimelineArguments:
    """Which videos, and where to."""

    videos: str = field(metadata={"help": "Folder of videos, or a video."})
    model: str = field(metadata={"help": "Folder of a checkpoint, or owner/name on the Hub."})
    output_dir: str = field(metadata={"help": "Folder of the results; each video gets a folder in it."})
    revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of a model on the Hub."})
    keypoints: str | None = field(
        default=None, metadata={"help": "Folder with the OpenPose JSON of each video: an entry named like the video."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace results that were made with other settings."})
    as_json: bool = field(default=False, metadata={"help": "Print one JSON object instead of a table."})


def main() -> int:
    """Make this process's share of the timelines; the main process tells of all, and fails if a video did."""
    parser = HfArgumentParser(cast(Any, (TimelineArguments, TimelineOptions)))
    args, options = parser.parse_args_into_dataclasses()
    jobs = plan_jobs(find_videos(args.videos), args.output_dir, args.keypoints, is_folder=Path(args.videos).is_dir())
    outcomes = run_share(jobs, args.model, options, revision=args.revision, overwrite=args.overwrite)
    if outcomes is None:
        return 0
    print_outcomes(outcomes, args.as_json)
    return exit_status(outcomes)


if __name__ == "__main__":
    run(main)
