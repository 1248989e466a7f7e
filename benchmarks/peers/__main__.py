"""Install the environment of the peers' decoders: python -m benchmarks.peers."""

import subprocess
import venv

from benchmarks.peers import ENVIRONMENT, FOLDER


def main() -> None:
    """Make the environment anew."""
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", str(FOLDER / "requirements.txt")], check=True)
    (ENVIRONMENT / ".installed").touch()


if __name__ == "__main__":
    main()
