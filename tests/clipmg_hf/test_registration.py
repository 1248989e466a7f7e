"""`import clipmg_hf` loads nothing heavy, and the Auto classes know CLIP-MG whatever is imported first."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

import clipmg_hf
from clipmg_hf import registration


HEAVY = (
    "torch",
    "transformers",
    "huggingface_hub",
    "datasets",
    "av",
    "numpy",
    "scipy",
    "matplotlib",
    "gradio",
    "typer",
)


def test_importing_the_package_imports_nothing_heavy(run_command):
    script = "import sys, clipmg_hf\nprint(*sorted(set(sys.modules) & set(sys.argv[1:])))\nprint(*dir(clipmg_hf))"
    loaded, names = run_command([sys.executable, "-c", script, *HEAVY]).stdout.splitlines()
    assert loaded == ""
    assert set(clipmg_hf.__all__) <= set(names.split())


def test_names_of_the_package():
    for name in clipmg_hf.__all__:
        source = clipmg_hf.processing if name.endswith("Processor") else clipmg_hf.modeling
        assert getattr(clipmg_hf, name) is getattr(source, name)
    with pytest.raises(AttributeError, match="module 'clipmg_hf' has no attribute 'CLIPMG'"):
        _ = clipmg_hf.CLIPMG
    with pytest.raises(ImportError, match="cannot import name 'CLIPMG'"):
        exec("from clipmg_hf import CLIPMG")


# --- any order of imports, each in a process of its own

LOAD = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

folder = sys.argv[1]
for auto_class in (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, AutoVideoProcessor):
    print(type(auto_class.from_pretrained(folder)).__module__)
print(type(pipeline("micro-gesture-classification", model=folder)).__module__)
print(type(sys.modules["transformers.pipelines"].__loader__).__name__)
print(any(type(finder).__module__.startswith("clipmg_hf") for finder in sys.meta_path))
"""


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import clipmg_hf", id="the package first"),
        pytest.param("from transformers import AutoModel; import clipmg_hf", id="an Auto class first"),
        # The import of pipelines loads the Auto classes half way, that of PreTrainedModel some of them.
        pytest.param("import clipmg_hf; from transformers import pipeline", id="the package, then pipelines"),
        pytest.param("import clipmg_hf; from transformers import PreTrainedModel", id="the package, then models"),
        pytest.param("import transformers, clipmg_hf.processing", id="a part of the package"),
    ],
)
def test_auto_classes_find_the_package(run_command, checkpoint, imports):
    lines = run_command([sys.executable, "-c", f"{imports}\n{LOAD}", str(checkpoint)]).stdout.splitlines()
    assert lines == [
        "clipmg_hf.modeling.configuration_clipmg",
        "clipmg_hf.modeling.modeling_clipmg",
        "clipmg_hf.modeling.modeling_clipmg",
        "clipmg_hf.processing.processing_clipmg",
        "clipmg_hf.processing.video_processing_clipmg",
        "clipmg_hf.modeling.pipeline_clipmg",
        # What is imported keeps its own loader, and nothing watches imports any more.
        "SourceFileLoader",
        "False",
    ]


SAVE = """
import sys
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification

CLIPMGForMicroGestureClassification.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""


def test_a_process_without_auto_classes_saves_the_code(run_command, checkpoint, tmp_path):
    run_command([sys.executable, "-c", SAVE, str(checkpoint), str(tmp_path)])
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"}
    assert (tmp_path / "modeling_clipmg.py").is_file() and (tmp_path / "pose_encoder_clipmg.py").is_file()


# --- when it registers


@pytest.fixture
def depths(monkeypatch):
    """In how many imports each registration took place; the finder waits as in a fresh process."""
    found = []
    monkeypatch.setattr(registration, "register_auto_classes", lambda: found.append(registration._thread.depth))
    monkeypatch.setattr(sys, "meta_path", [registration._finder, *sys.meta_path])
    return found


def load(execute):
    """Execute a module that consists of the call of a function."""
    loader = SimpleNamespace(create_module=lambda spec: None, exec_module=lambda module: execute())
    registration._Loader(loader).exec_module(ModuleType("module"))
    return loader


def fail(error):
    raise error


def test_it_registers_once_after_the_outermost_import(depths):
    load(lambda: [load(lambda: None), depths.append("end")])
    load(lambda: None)
    assert depths == ["end", 1]
    assert registration._finder not in sys.meta_path and registration._thread.depth == 0


def test_it_waits_for_what_it_is_needed_for(depths, monkeypatch):
    monkeypatch.setattr(registration, "_TRIGGERS", ("transformers.models.nothing",))
    load(lambda: None)
    assert depths == [] and registration._finder in sys.meta_path


def test_a_failed_import_leaves_what_it_had_loaded_registered(depths):
    with pytest.raises(ImportError, match="missing"):
        load(lambda: fail(ImportError("missing")))
    assert depths == [1] and registration._thread.depth == 0


def test_an_interrupted_import_ends_at_once(depths):
    with pytest.raises(KeyboardInterrupt):
        load(lambda: fail(KeyboardInterrupt()))
    assert depths == [] and registration._thread.depth == 0


def test_a_failed_registration_is_tried_again(depths, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registration, "register_auto_classes", lambda: fail(ImportError("missing")))
        with pytest.raises(ImportError, match="missing"):
            load(lambda: None)
    load(lambda: None)
    assert depths == [1]


def test_other_packages_are_left_alone(depths):
    assert registration._finder.find_spec("json", None) is None
    assert registration._finder.find_spec("transformers_of_another", None) is None
