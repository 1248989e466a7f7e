"""Without any extra the package predicts and explains: what an extra brings is imported where it is used."""

import json
import sys

from clipmg_hf.inference import predict_clip


# Of all extras but `dev` and `quantization`, which transformers imports itself.
EXTRAS = (
    *("matplotlib", "PIL", "peft", "tensorboard", "trackio", "gradio", "rtmlib", "mediapipe"),
    *("onnx", "onnxscript", "onnxruntime", "openvino"),
)
RUN = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))

import importlib, json, pkgutil
import clipmg_hf.inference
from clipmg_hf import cli, commands
for module in pkgutil.iter_modules(commands.__path__, "clipmg_hf.commands."):
    importlib.import_module(module.name)
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        cli.main()
    except SystemExit as end:
        codes.append(end.code)
print(codes)
"""


def test_commands_work_without_extras_and_name_the_one_for_drawings(run_command, checkpoint, loaded, video, tmp_path):
    common = [str(video), "--model", str(checkpoint), "--device", "cpu", "--quiet"]
    words = [
        ["predict", *common, "--json"],
        ["explain", *common, "--json"],
        ["timeline", *common, "--output", str(tmp_path / "timelines"), "--formats", "csv,page"],
        ["predict", *common, "--overlay", str(tmp_path / "overlay.png")],
        ["explain", *common, "--output", str(tmp_path / "explanation")],
    ]
    done = run_command([sys.executable, "-c", RUN, json.dumps(words)])
    predicted, explained, *_, codes = done.stdout.splitlines()
    label = predict_clip(*loaded, video).label
    assert json.loads(predicted)["scores"][0]["label"] == label and json.loads(explained)["label"]["name"] == label
    assert codes == "[0, 0, 0, 1, 1]"
    errors = done.stderr.splitlines()
    assert len(errors) == 2 and all('pip install "clipmg_hf[viz]"' in line for line in errors)
    assert [path.name for path in tmp_path.iterdir()] == ["timelines"]
