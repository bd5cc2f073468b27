"""`vireid config`: list presets, print their values, and explain settings."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption, SetOption
from flows.cli.printing import print_json, print_line, stdout

config_app = typer.Typer(no_args_is_help=True, help="List presets, print their values, and explain settings.")


@config_app.command("list")
def list_presets(as_json: JsonOption = False) -> None:
    """List the presets with method, data set and purpose."""
    from pipeline.config.explain import summaries

    found = summaries()
    if as_json:
        print_json({"presets": [asdict(one) for one in found]})
        return
    table = Table()
    for column in ("preset", "method", "data", "extends", "purpose"):
        table.add_column(column, overflow="fold", no_wrap=column == "preset")
    for one in found:
        table.add_row(one.preset, one.method, one.data, one.extends or "", one.purpose)
    stdout().print(table)


@config_app.command()
def show(
    preset: Annotated[str, typer.Argument(help="A preset, or the path of a .toml file.")], changes: SetOption = None
) -> None:
    """Print every value of a preset as JSON, with the digest that names its runs."""
    from pipeline.config.experiment import digest_of, record_of
    from pipeline.config.presets import load_config

    config = load_config(preset, changes or ())
    typer.echo(json.dumps({"digest": digest_of(config)} | record_of(config), indent=2))


@config_app.command()
def explain(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Such as labelling.visible.eps; or a section.", show_default="all")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain a setting: its meaning, default and range, and the origin of its value in every preset."""
    from pipeline.config.explain import explain as explanation_of
    from pipeline.config.explain import settings_below

    below = settings_below(key.rstrip("."))
    if below:
        if as_json:
            print_json({"settings": [asdict(one) for one in below.values()]})
            return
        for one in below.values():
            print_line(f"{one.key} = {one.default}\n    {one.meaning}")
        return
    found = explanation_of(key)
    if as_json:
        print_json(asdict(found))
        return
    for setting in dict.fromkeys(found.settings.values()):
        methods = [method for method, one in found.settings.items() if one == setting]
        print_line(f"{key} ({', '.join(methods)})\n    {setting.meaning}")
        print_line(f"    default: {setting.default}\n    accepted: {setting.accepted}")
    table = Table()
    for column in ("preset", "value", "set by", "origin"):
        table.add_column(column, overflow="fold", no_wrap=column == "preset")
    for value in found.presets:
        if value.source is not None:
            table.add_row(value.preset, value.value, value.source, value.origin)
    if table.row_count:
        stdout().print(table)
    if table.row_count < len(found.presets):
        print_line(f"{'the other' if table.row_count else 'all'} presets have the default")
