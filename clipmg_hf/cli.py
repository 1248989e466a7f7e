"""The command `clipmg`: classify a clip, make the timelines of whole videos, or look at a data set, from the shell.

    clipmg predict VIDEO --keypoints FOLDER --start 12.5 --end 14 --model MODEL --overlay sheet.png
    clipmg timeline VIDEOS --pose vitpose --model MODEL --output RESULTS
    clipmg explain VIDEO --keypoints FOLDER --model MODEL --output EXPLANATION
    clipmg data FOLDER --report REPORT
    clipmg app --model MODEL

Results go to stdout, progress and messages to stderr; exit codes are those of `clipmg_hf.console`. The commands are in
`clipmg_hf.commands`; what is heavy to import is imported inside them.
"""

from typing import Annotated

from clipmg_hf.console import TRACEBACK, errors_to_exit


# These imports, too, are interrupted without a traceback.
with errors_to_exit():
    import typer

    from clipmg_hf.commands.app import app as app_command
    from clipmg_hf.commands.data import data
    from clipmg_hf.commands.explain import explain
    from clipmg_hf.commands.predict import predict
    from clipmg_hf.commands.timeline import timeline


app = typer.Typer(
    name="clipmg",
    help="Micro-gesture recognition from RGB and pose.",
    epilog=f"{TRACEBACK}=1 in the environment shows where in the code an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (predict, timeline, explain, app_command, data):
    app.command()(_command)


def _show_version(value: bool) -> None:
    if value:
        from clipmg_hf import __version__

        typer.echo(f"clipmg {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Micro-gesture recognition from RGB and pose."""


def main() -> None:
    """Entry point of the command `clipmg`."""
    app()


__all__ = ["app", "main"]


if __name__ == "__main__":
    main()
