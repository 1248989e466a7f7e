"""A Hugging Face Hub on loopback, for tests: what huggingface_hub, transformers and datasets need of its HTTP API.

Models, data sets and Spaces with commits, branches, tags, pull requests as commits, private repositories, tokens, and
large files by git LFS on a second origin. Not here: git itself, Xet (clients set `HF_HUB_DISABLE_XET=1`), discussions,
gated repositories, running Spaces.
"""

from .fixture import Hub, open_hub
from .server import HubServer


__all__ = ["Hub", "HubServer", "open_hub"]
