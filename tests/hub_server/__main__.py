"""Serve a Hub in the foreground, to look at what a push does.

Command:
    python -m tests.hub_server --folder /tmp/hub --port 8090
    HF_ENDPOINT=http://127.0.0.1:8090 HF_TOKEN=hf_alice_write HF_HUB_DISABLE_XET=1 hf upload alice/model folder
"""

import argparse
import contextlib
import threading
from pathlib import Path

from .accounts import TOKENS
from .server import HubServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where repositories are kept")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    arguments = parser.parse_args()
    with HubServer(arguments.folder, arguments.port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.endpoint}  tokens: {', '.join(TOKENS)}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
