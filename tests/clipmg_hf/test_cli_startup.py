"""The command `clipmg` answers what needs no model without importing what models need; early interrupts are quiet."""

import sys

import pytest


HEAVY = ("torch", "transformers", "huggingface_hub", "datasets", "av", "numpy", "scipy", "matplotlib", "gradio", "PIL")

RUN = """
import sys
from clipmg_hf import cli

commands = ("predict", "timeline", "explain", "app", "data")
wrong = ["timeline", "a.mp4", "--model", "m", "--output", "o", "--subject", "nobody"]
for words in (["--version"], ["--help"], *([name, "--help"] for name in commands), wrong):
    sys.argv = ["clipmg", *words]
    try:
        cli.main()
    except SystemExit as end:
        print("status", end.code)
print("loaded", *sorted(set(sys.modules) & set({heavy!r})))
"""


def test_help_and_wrong_usage_import_nothing_heavy(run_command):
    lines = run_command([sys.executable, "-c", RUN.format(heavy=HEAVY)]).stdout.splitlines()
    assert [line for line in lines if line.startswith("status")] == ["status 0"] * 7 + ["status 2"]
    assert lines[-1].split() == ["loaded"]


INTERRUPT = """
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
from clipmg_hf import cli
cli.main()
"""


@pytest.mark.parametrize("module", ["rich.console", "torch"])
def test_an_interrupt_while_importing_ends_with_130(run_command, module):
    script = INTERRUPT.format(module=module)
    done = run_command([sys.executable, "-c", script, "predict", "a.mp4", "--model", "m"], expected=130)
    assert (done.stdout, done.stderr) == ("", "interrupted; run the same command again to go on\n")
