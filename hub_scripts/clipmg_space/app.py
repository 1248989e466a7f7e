"""The Space's page: the app of the package, with the model that the Space's variable CLIPMG_MODEL names."""

import os

from clipmg_hf.app import launch


if __name__ == "__main__":
    launch(os.environ["CLIPMG_MODEL"], host="0.0.0.0", port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
