"""The Space's page: the app of the package, with one model of the Hub. `CLIPMG_MODEL` names another one."""

import os

from clipmg_hf.app import launch


MODEL = "<model>"


if __name__ == "__main__":
    model = os.environ.get("CLIPMG_MODEL", MODEL)
    launch(model, host="0.0.0.0", port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
