"""`clipmg app`: the app in a browser of this machine."""

from typing import Annotated

import typer
from rich.console import Console

from clipmg_hf.commands import shared
from clipmg_hf.console import errors_to_exit


def app(
    model: shared.ModelOption,
    revision: shared.RevisionOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any other lets machines of the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    pose: shared.PoseOption = None,
    pose_weights: shared.PoseWeightsOption = None,
    person_detector: shared.PersonDetectorOption = None,
    device: shared.DeviceOption = None,
    backend: shared.BackendOption = "torch",
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest upload, in megabytes.")] = 200,
    max_minutes: Annotated[float, typer.Option(help="Longest video, in minutes.")] = 10,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve an app for the browser: upload a video, look at its timeline, download the results."""
    with errors_to_exit():
        with Console(stderr=True).status("Loading"):
            from clipmg_hf.app import launch

        launch(
            model,
            revision=revision,
            backend=backend,
            host=host,
            port=port,
            pose=pose,
            pose_weights=pose_weights,
            person_detector=person_detector,
            device=device,
            max_upload_mb=max_upload_mb,
            max_minutes=max_minutes,
            open_browser=open_browser,
        )


__all__ = ["app"]
