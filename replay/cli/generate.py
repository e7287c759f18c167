"""`replay generate`: makes a trace of synthetic traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from replay import units
from replay.errors import UsageError

from .flags import whole_number
from .options import out_option

KERNELS = (
    "workload.arrivals",
    "workload.mixes",
    "trace.order",
    "trace.dictionary",
    "trace.routes",
    "workload.dispersion",
)


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{flag}: {text!r} is not a number") from None


def _levels(text: str, flag: str) -> list[float]:
    """Parse rates that are separated by commas, to requests per second. 0 is allowed. UsageError for an invalid one."""
    try:
        return [
            units.parse_rate_per_s(part) if part.strip() not in ("0", "0/s") else 0.0
            for part in text.split(",")
        ]
    except UsageError as error:
        raise UsageError(f"{flag}: {error}", hint=error.hint) from None


def _curve(given: dict[str, Any]) -> dict[str, Any] | None:
    """Return the [curve] table that --ramp, --steps or --curve describes; None without these flags.

    UsageError for an invalid value.
    """
    if given["ramp"] is not None:
        begin, colon, end = given["ramp"].partition(":")
        if not colon:
            raise UsageError(f"--ramp: {given['ramp']!r} is not FROM:TO", hint="write --ramp 10/s:200/s")
        return {
            "times": ["0s", given["duration"] or "60s"],
            "rates": [*_levels(begin, "--ramp"), *_levels(end, "--ramp")],
        }
    if given["steps"] is not None:
        return {"steps": _levels(given["steps"], "--steps")}
    if given["curve"] is not None:
        bounds = {name: given[f"window__{name}"] for name in ("from", "until")}
        return {
            "file": given["curve"],
            **{name: value for name, value in bounds.items() if value is not None},
        }
    return None


def _mix(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the [[request]] tables that --mix and --zipf describe. UsageError for an invalid value."""
    rules = []
    for text in given["mix"]:
        route, equals, weight = text.rpartition("=")
        method, _, path = (route if equals else text).partition(" ")
        if not path:
            raise UsageError(
                f"--mix: {text!r} is not 'METHOD /path=WEIGHT'", hint="write --mix 'GET /items/{id}=3'"
            )
        value = _number(weight, "--mix") if equals else 1.0
        rules.append({"method": method, "path": path, "weight": value, "ids": 1_000})
    if given["zipf"] is not None:
        count, _, exponent = given["zipf"].partition(":")
        if not count.isdigit():
            raise UsageError(
                f"--zipf: {given['zipf']!r} is not ITEMS[:EXPONENT]", hint="write --zipf 10000:1.1"
            )
        value = _number(exponent, "--zipf") if exponent else 1.0
        rules.append({"path": "/items/{id}", "ids": int(count), "zipf": value})
    return rules


def _settings(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the recipe keys that flags set, and the flag of each for error messages.

    UsageError if flags contradict each other, or for an invalid value.
    """
    rates = [name for name in ("rate", "poisson", "gamma") if given[name] is not None]
    curves = [name for name in ("ramp", "steps", "curve", "shape") if given[name] is not None]
    if len(rates) > 1 or len(curves) > 1:
        flags = ", ".join(f"--{name}" for name in (rates if len(rates) > 1 else curves))
        raise UsageError(f"{flags} contradict each other", hint="give only one")
    bounds = [name for name in ("from", "until") if given[f"window__{name}"] is not None]
    if bounds and given["curve"] is None:
        raise UsageError(f"--{bounds[0]} needs --curve", hint="--start sets the time of the first request")
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key, flag in (
        ("duration", "-d"), ("shape", "--shape"), ("process", "--process"), ("bursts_of", "--bursts-of"),
        ("mix_of", "--mix-of"), ("start", "--start"),
    ):  # fmt: skip
        if given[key] is not None:
            values[key], names[key] = given[key], flag
    for name in rates:
        values["rate"], names["rate"] = given[name], f"--{name}"
        if given["process"] is None:
            values["process"] = {"rate": "even", "poisson": "poisson", "gamma": "gamma"}[name]
    if given["seed"] is not None:
        values["seed"] = whole_number(given["seed"], "--seed")
    if given["cv"] is not None:
        values["cv"], names["cv"] = _number(given["cv"], "--cv"), "--cv"
    if given["clients"] is not None:
        values["clients"], names["clients"] = given["clients"], "--clients"
    if (curve := _curve(given)) is not None:
        values["curve"], names["curve"] = curve, f"--{curves[0]}"
    if mix := _mix(given):
        asked = [f"--{name}" for name in ("mix", "zipf") if given[name]]
        values["request"], names["request"] = mix, ", ".join(asked)
    return values, names


@click.command(name="generate", short_help="Make a trace of synthetic traffic.")
@click.argument("recipe", required=False, metavar="[RECIPE.toml]")
@out_option("Trace to write.", required=True)
@click.option("-d", "--duration", metavar="TIME", help="Length of the trace: 60s, 24h.")
@click.option("--rate", metavar="RATE", help="Requests at even intervals: 500/s.")
@click.option("--poisson", metavar="RATE", help="Requests of independent users (a Poisson process): 500/s.")
@click.option(
    "--gamma",
    metavar="RATE",
    help="Gamma-distributed gaps: burstier than Poisson with --cv above 1, more even below 1.",
)
@click.option("--cv", metavar="CV", help="Standard deviation of the gaps of --gamma divided by their mean.")
@click.option("--ramp", metavar="FROM:TO", help="Linear change from one rate to another: 10/s:200/s.")
@click.option("--steps", metavar="RATES", help="One rate after the other: 10/s,50/s,10/s.")
@click.option(
    "--shape",
    metavar="NAME",
    help="Curve of the rate: day, week, 6pm, monday, january or lockdown; --rate, --poisson or --gamma is its mean.",
)
@click.option("--curve", metavar="FILE", help="CSV of time and rate, or time and count.")
@click.option("--from", "window__from", metavar="WHEN", help="With --curve: first moment of FILE to use.")
@click.option("--until", "window__until", metavar="WHEN", help="With --curve: moment of FILE to end before.")
@click.option("--process", metavar="NAME", help="Arrivals at the current rate: even, poisson or gamma.")
@click.option("--bursts-of", metavar="TRACE", help="Bursts like those of this trace (a fitted MMPP2).")
@click.option("--mix-of", metavar="TRACE", help="Requests of this trace, in its proportions.")
@click.option(
    "--mix",
    multiple=True,
    metavar="'METHOD /path=WEIGHT'",
    help="A request with its weight; {id} is replaced by a number.",
)
@click.option(
    "--zipf", metavar="ITEMS[:EXPONENT]", help="Requests for the items of a catalogue, by popularity."
)
@click.option("--clients", type=int, metavar="N", help="Number of clients [default: 1000].")
@click.option(
    "--start", metavar="WHEN", help="First moment [default: that of --curve, or 2026-01-05T00:00:00Z]."
)
@click.option("--seed", metavar="N", help="Seed of all random draws [default: 1].")
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
def command(recipe: str | None, out: Path, force: bool, **given: Any) -> None:
    """Make a trace from a recipe, or from flags, which override it. The same settings and seed give the same trace."""
    import msgspec
    from rich.text import Text

    from replay.report.console import Console
    from replay.settings.file import load_as
    from replay.workload.generate import generate
    from replay.workload.recipe import Recipe, beside

    from .import_ import facts, span_text
    from .progress import warm_kernels

    values, names = _settings(given)
    path = None if recipe is None else Path(recipe)
    wanted = load_as(Recipe, None, values, names)
    if path is not None:
        fields = {_field(name): getattr(wanted, _field(name)) for name in values}
        wanted = msgspec.structs.replace(beside(load_as(Recipe, path), path), **fields)
    if given["cv"] is not None and wanted.process != "gamma":
        raise UsageError("--cv needs gamma gaps", hint="write --gamma RATE, or --process gamma")
    warm_kernels(Console(stderr=True), KERNELS)
    trace = generate(wanted, out, overwrite=force)
    table = facts()
    rate = units.format_rate(trace.rows * units.SECOND_NS / max(trace.end_ns - trace.start_ns, 1))
    table.add_row(
        "requests",
        f"{trace.rows:,}, {trace.manifest.requests:,} distinct, {trace.manifest.clients:,} clients",
    )
    table.add_row("span", span_text(trace))
    table.add_row("rate", f"{rate} on average")
    table.add_row("trace", Text(str(trace.path), style="bold"))
    Console(highlight=False).print(table)


def _field(key: str) -> str:
    """Return the attribute of `Recipe` for a key."""
    return {"duration": "duration_ns", "rate": "rate_per_s"}.get(key, key)
