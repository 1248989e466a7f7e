"""The app in a browser: upload a video, look at its timeline, download the results.

    clipmg app --model runs/full/checkpoint

It listens at this machine alone unless told otherwise, asks no other host for anything, and removes a visitor's files
when the page is closed. Needs the extra: pip install "clipmg_hf[app]"
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmg_hf.app_analysis import (
    NO_VIDEO,
    RESULTS_PATH,
    SUBJECTS,
    Choices,
    Engine,
    Example,
    analyse,
    describe_inputs,
    explain_error,
    render_results,
    throttled,
)
from clipmg_hf.app_visitors import MAX_AGE, Limits, Visitor, Visitors
from clipmg_hf.inference import load_model
from clipmg_hf.pose_choice import load_pose_choice


if TYPE_CHECKING:
    import gradio


LOOPBACK = ("127.0.0.1", "localhost", "::1")
TITLE = "Micro-gestures in a video"
# What browsers may load and ask: this server alone, whatever version of Gradio there is.
CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
# Parts of Gradio that are not needed: they send files to whoever knows a path, fetch addresses, and keep records.
_CLOSED = ("/file=", "/file/", "/proxy=", "/monitoring", "/gradio_api/deep_link", "/gradio_api/runs", "/run-history")
_SWEEP_SECONDS = 60.0

_INTRODUCTION = """# Micro-gestures in a video
A model looks through the video and marks small movements such as touching the neck or folding the arms. Give it a
video, and OpenPose keypoints if you have them; or take the example.
"""
_ABOUT = f"""### What to know
- **The model** (CLIP-MG) compares short pieces of the video with the gestures that it was trained on, from the
  pictures and, with keypoints, the pose. It knows no other gestures.
- **It is not** a lie detector, and reads no feelings, thoughts or intentions. It is not for diagnoses, hiring,
  policing or any other decision about a person.
- **Scores are not truths.** It misses gestures and finds some that are not there; a score of 0.8 does not mean right
  in 80 of 100 cases. People, cameras and rooms unlike those in its training data make it worse. Look at every event
  yourself before you use it.
- **Consent.** Upload only videos of people who have agreed to this use. Faces are blurred unless you switch that off;
  clothes, bodies and places may still tell who somebody is.
- **Your files** are on the machine that serves this page and sent nowhere else. Others who use the page cannot see
  them, its owner can. They are removed when you close the page, or after {MAX_AGE / 3600:g} hour without use.
"""
_CSS = """
#results { min-height: 5rem; }
.timeline { width: 100%; height: 62rem; max-height: 90vh; border: 1px solid #b9bec7; border-radius: 6px;
  background: #fff; }
.downloads { columns: 24rem; list-style: none; padding: 0; }
.downloads li { break-inside: avoid; padding: .15rem 0; }
.downloads span { opacity: .7; }
"""


def launch(
    model: str,
    *,
    revision: str | None = None,
    backend: str = "torch",
    host: str = "127.0.0.1",
    port: int = 7860,
    pose: str | None = None,
    pose_weights: str | None = None,
    person_detector: str | None = None,
    device: str | None = None,
    max_upload_mb: int = 200,
    max_minutes: float = 10,
    open_browser: bool = False,
) -> None:
    """Serve the app until it is interrupted.

    Args:
        model (`str`): Folder of a checkpoint, or owner/name on the Hub.
        revision (`str`, *optional*): Commit, tag or branch of a Hub name; by default the newest commit of `main`.
        backend (`str`, defaults to "torch"): "onnx" runs an exported model in ONNX Runtime.
        host (`str`, defaults to "127.0.0.1"): Address to listen at; "0.0.0.0" lets in everybody who reaches it.
        port (`int`, defaults to 7860): Port to listen at.
        pose, pose_weights, person_detector (`str`, *optional*): What finds people where there are no keypoints; see
            `clipmg_hf.pose_choice.load_pose_choice`.
        device (`str`, *optional*): Where the model computes.
        max_upload_mb (`int`, defaults to 200): Megabytes of an upload.
        max_minutes (`float`, defaults to 10): Length of a video.
        open_browser (`bool`, defaults to `False`): Open the page in a browser of this machine.

    Raises:
        ImportError: The extra is missing.
        ValueError: An unusable model or estimator, or a limit that is not above 0.
        OSError: The port is taken.
    """
    limits = Limits(max_upload_mb, max_minutes)
    _import_gradio()
    estimator = load_pose_choice(pose, pose_weights, person_detector, device)
    engine = Engine(*load_model(model, device, backend=backend, revision=revision), estimator)
    # Visitors' files are removed after this, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with serve(engine, host=host, port=port, limits=limits, open_browser=open_browser) as (blocks, address):
        print(f"Open {address} in a browser; stop with Ctrl-C.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            blocks.block_thread()


@contextlib.contextmanager
def serve(
    engine: Engine, *, host: str, port: int, limits: Limits, open_browser: bool = False
) -> Iterator[tuple["gradio.Blocks", str]]:
    """Serve the app in threads while the block runs; all files are removed at its end."""
    _import_gradio()
    with tempfile.TemporaryDirectory(prefix="clipmg_app_") as place:
        root = Path(place).resolve()
        visitors = Visitors(root)
        os.environ["GRADIO_TEMP_DIR"] = str(visitors.uploads)
        blocks = build(engine, visitors, limits)
        stop = threading.Event()
        threading.Thread(target=_sweep, args=(visitors, stop), daemon=True).start()
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=open_browser,
                quiet=True,
                prevent_thread_lock=True,
                # Messages of our own are shown all the same.
                show_error=False,
                max_file_size=limits.max_upload,
                enable_monitoring=False,
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                theme=_make_theme(),
                css=_CSS,
                app_kwargs=server_parts(visitors, host),
            )
            yield blocks, address
        finally:
            stop.set()
            blocks.close(verbose=False)
            visitors.remove_old(max_age=-1)


def build(engine: Engine, visitors: Visitors, limits: Limits) -> "gradio.Blocks":
    """The page and what its buttons do."""
    import gradio

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gradio.Markdown(_INTRODUCTION)
        with gradio.Row():
            with gradio.Column():
                video = gradio.File(
                    label=f"Video, at most {limits.max_minutes:g} min and {limits.max_upload_mb:g} MB",
                    file_types=["video"],
                    height=150,
                    elem_id="video",
                )
                keypoints = gradio.File(
                    label="Keypoints, if you have them: OpenPose JSON, one .zip or several .json",
                    file_types=[".zip", ".json"],
                    file_count="multiple",
                    height=150,
                    elem_id="keypoints",
                )
                with gradio.Row():
                    take = gradio.Button("Use the example", elem_id="example")
                    clear = gradio.Button("Start over", elem_id="clear")
            with gradio.Column():
                inputs = gradio.HTML(NO_VIDEO, elem_id="inputs")
                subject = gradio.Dropdown(list(SUBJECTS.items()), value=Choices.subject, label="Whom to follow")
                threshold = gradio.Slider(
                    0.05,
                    0.95,
                    Choices.threshold,
                    step=0.05,
                    label="Score that a gesture needs",
                    elem_id="threshold",
                )
                blur = gradio.Checkbox(Choices.blur_face, label="Blur faces in the annotated video", elem_id="blur")
                with gradio.Row():
                    start = gradio.Button("Analyse", variant="primary", elem_id="analyse")
                    stop = gradio.Button("Cancel", variant="stop", elem_id="cancel")
        results = gradio.HTML(elem_id="results")
        gradio.Markdown(_ABOUT)
        actions = _make_actions(engine, visitors, limits)
        private: dict[str, Any] = {"api_visibility": "private"}
        video.upload(actions["take_video"], video, [video, inputs], **private)
        keypoints.upload(actions["take_keypoints"], keypoints, [keypoints, inputs], **private)
        # Drawing the example takes the processor as well.
        take.click(actions["take_example"], None, [inputs, results], concurrency_id="work", **private)
        clear.click(actions["start_over"], None, [inputs, results], **private)
        running = start.click(
            actions["run"], [subject, threshold, blur], results, concurrency_id="work", concurrency_limit=1, **private
        )
        stop.click(actions["cancel"], None, None, cancels=[running], queue=False, **private)
        blocks.unload(actions["leave"])
    return blocks.queue(max_size=32)


def _make_actions(engine: Engine, visitors: Visitors, limits: Limits) -> dict[str, Callable[..., Any]]:
    """What the buttons do, for the visitor whose request it is; Gradio finds requests by their annotation."""
    import gradio

    example = Example(visitors.root / "example")
    # Gradio frees the place of a cancelled job while that still stops.
    one_at_a_time = threading.Lock()
    bar = gradio.Progress()

    def visitor_of(request: gradio.Request) -> Visitor:
        return visitors.find(request.session_hash)

    def explain(error: Exception) -> str:
        return escape(explain_error(error, visitors.root, *visitors.root.iterdir()))

    @contextlib.contextmanager
    def explained() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise gradio.Error(explain(error), duration=None, print_exception=False) from None

    def take(visitor: Visitor, uploads: Callable[[], None]) -> tuple[None, str]:
        # An error would leave the refused file in its box, so this is a warning.
        try:
            uploads()
        except Exception as error:
            gradio.Warning(explain(error), duration=None)
        return None, describe_inputs(visitor, engine)

    def take_video(path: str, request: gradio.Request) -> tuple[None, str]:
        visitor = visitor_of(request)
        return take(visitor, lambda: visitor.take_video(Path(path), limits))

    def take_keypoints(paths: list[str], request: gradio.Request) -> tuple[None, str]:
        visitor = visitor_of(request)
        return take(visitor, lambda: visitor.take_keypoints([Path(path) for path in paths], limits))

    def take_example(request: gradio.Request) -> tuple[str, str]:
        with explained():
            visitor = visitor_of(request)
            example.give(visitor)
            return describe_inputs(visitor, engine), ""

    def start_over(request: gradio.Request) -> tuple[str, str]:
        with explained():
            visitor = visitor_of(request)
            visitor.start_over()
            return describe_inputs(visitor, engine), ""

    def run(subject: str, threshold: float, blur_face: bool, request: gradio.Request, progress: Any = bar) -> str:
        with explained():
            visitor = visitor_of(request)
            with one_at_a_time:
                timeline = analyse(visitor, engine, Choices(subject, threshold, blur_face), throttled(progress))
            return render_results(visitor, timeline)

    def cancel(request: gradio.Request) -> None:
        visitor_of(request).cancel()

    def leave(request: gradio.Request) -> None:
        visitors.leave(request.session_hash)

    actions = (take_video, take_keypoints, take_example, start_over, run, cancel, leave)
    return {action.__name__: action for action in actions}


def server_parts(visitors: Visitors, host: str) -> dict[str, Any]:
    """Arguments of the web server: the route that sends results, and what stands before all routes."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def send(request: Request) -> Response:
        name = request.path_params["name"]
        path = visitors.find_result(request.path_params["secret"], name)
        if path is None or not path.is_file():
            return PlainTextResponse("There is no such file, or it was removed.", 404)
        kind = "inline" if path.suffix in (".html", ".mp4") else "attachment"
        return FileResponse(path, filename=name, content_disposition_type=kind, headers={"Cache-Control": "no-store"})

    parts = [Middleware(Guard)]
    if host in LOOPBACK:
        # A page of another site that has its name lead here gets nothing.
        parts.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"]))
    return {"routes": [Route(f"/{RESULTS_PATH}/{{secret}}/{{name}}", send)], "middleware": parts}


class Guard:
    """Middleware (ASGI): closes parts of Gradio, and tells browsers to ask no other host."""

    def __init__(self, app: Callable[..., Any]):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", CONTENT_POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        if any(part in scope["path"] for part in _CLOSED):
            await send_with_headers({"type": "http.response.start", "status": 404})
            await send({"type": "http.response.body", "body": b"closed"})
            return
        await self._app(scope, receive, send_with_headers)


def _sweep(visitors: Visitors, stop: threading.Event) -> None:
    while not stop.wait(_SWEEP_SECONDS):
        visitors.remove_old()


def _make_theme() -> Any:
    """A theme whose fonts are those of the visitor's system: none is fetched."""
    import gradio

    font = [gradio.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gradio.themes.Font(name) for name in ("ui-monospace", "monospace")]
    return gradio.themes.Default(font=font, font_mono=mono)


def _import_gradio() -> None:
    # Read when Gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(f'the app needs gradio ({error}): pip install "clipmg_hf[app]"') from error


__all__ = ["launch", "serve"]
