"""The metric for the `evaluate` library as a folder: `evaluate.load` loads it, and it can be pushed as a Space.

    folder = write_metric_space("clipmg_metric")
    metric = evaluate.load(str(folder.resolve()))

Where the folder is used, this package need not be installed: the folder gets a copy of `clipmg_hf/metrics.py`.
"""

import os
from pathlib import Path

from clipmg_hf.files import write_file


METRIC_NAME = "clipmg_metric"
SOURCE = Path(__file__).parents[1] / "hub_scripts" / METRIC_NAME
FORMULAS = Path(__file__).with_name("metrics.py")
FORMULAS_COPY = "metrics_clipmg.py"
FILES = (f"{METRIC_NAME}.py", "app.py", "requirements.txt", "README.md")
COPY_HEADER = "# Written by clipmg_hf.metric_space from clipmg_hf/metrics.py: change that file, not this one.\n"
OWNER_PLACEHOLDER = "<namespace>"


def write_metric_space(folder: str | os.PathLike, owner: str | None = None) -> Path:
    """Write the metric's script, its formulas, and the Space's page, requirements and README.

    Args:
        folder (`str` or `PathLike`): Made if it is not there; files of these names are replaced. It, and the Space,
            must be named `clipmg_metric`, because `evaluate` looks for a script of the folder's name.
        owner (`str`, *optional*): Whose Space it becomes; without, the examples leave it open.

    Returns:
        `Path` of the folder.

    Raises:
        ValueError: Another name.
        FileNotFoundError: The package was installed without the repository, which has the Space's files.
    """
    folder = Path(folder)
    if folder.resolve().name != METRIC_NAME:
        raise ValueError(f"{folder}: evaluate looks for a script of the folder's name; expected a {METRIC_NAME}/.")
    if not SOURCE.is_dir():
        raise FileNotFoundError(f"{SOURCE} is missing; run this from a clone of the repository.")
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: (SOURCE / name).read_text(encoding="utf-8") for name in FILES}
    if owner is not None:
        texts = {name: text.replace(OWNER_PLACEHOLDER, owner) for name, text in texts.items()}
    texts[FORMULAS_COPY] = COPY_HEADER + FORMULAS.read_text(encoding="utf-8")
    for name, text in texts.items():
        write_file(folder / name, text)
    return folder


__all__ = ["METRIC_NAME", "write_metric_space"]
