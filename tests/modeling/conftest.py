"""Markers that the shared tests of transformers use (ours are declared strictly in `pyproject.toml`)."""


def pytest_configure(config):
    markers = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
    for marker in (*markers, "is_training_test", "order", "torch_compile_test"):
        config.addinivalue_line("markers", f"{marker}: of the shared tests of transformers")
