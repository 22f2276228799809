"""A simulation as one page in HTML, with plots. It needs nothing from elsewhere."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

from controlplane.sim.faults import BadInput
from controlplane.sim.summary import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from controlplane.sim.simulate import Result

HOUR_US = 3_600_000_000
POINTS = 1_000
"""Points of a curve; more can't be told apart."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 1px solid; }
svg { max-width: 100%; height: auto; }
"""


def plotter() -> Any:
    """The library that draws. BadInput where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise BadInput(
            "--report: matplotlib draws the plots, and it is not installed;"
            " run pip install 'controlplane[report]'"
        ) from None
    matplotlib.use("svg")
    # The same simulation gives the same page: text as text, ids and dates from nothing.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "controlplane"})
    from matplotlib.figure import Figure

    return Figure


def write(result: Result, path: Path) -> None:
    """Write the page."""
    figure = plotter()
    plots: dict[str, Callable[[Any, Result], None]] = {
        "GPUs over time": _over_time,
        "Jobs over time": _queue,
        "How long jobs waited for their first start": _waits,
        "From submission to end, by GPUs": _by_size,
        "Accounts while somebody waited": _accounts,
    }
    title = f"{result.policy} on {result.nodes} nodes with {result.gpus} GPUs"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{result.summary.overall.jobs} jobs of {html.escape(result.trace or 'the trace')}.</p>",
        _figures(result.document()),
        _groups("GPUs", result.document()["by_size"]),
        _groups("Account", result.document()["by_account"]),
    ]
    for name, draw in plots.items():
        drawn = figure(figsize=(9, 3.5), layout="constrained")
        draw(drawn.subplots(), result)
        out = io.StringIO()
        drawn.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        parts.append(f"<h2>{name}</h2>{out.getvalue().partition('<svg')[2].join(['<svg', ''])}")
    try:
        path.write_text("\n".join([*parts, "</html>\n"]), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--report {path} can't be written: {error.strerror or error}") from None


def _figures(document: Mapping[str, object]) -> str:
    rows = "".join(
        f"<tr><td>{name}</td><td>{html.escape(f'{value:,}')}</td></tr>"
        for name, value in document.items()
        if isinstance(value, int | float)
    )
    return f"<h2>Figures</h2><table><tr><th>Figure</th><th>Value</th></tr>{rows}</table>"


def _groups(what: str, groups: object) -> str:
    if not isinstance(groups, list) or not groups:
        return ""
    names = [name for name in groups[0] if name != "name"]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        f"<tr><td>{html.escape(group['name'] or '(none)')}</td>"
        + "".join(f"<td>{group[name]:,}</td>" for name in names)
        + "</tr>"
        for group in groups
    )
    return f"<h2>By {what.lower()}</h2><table><tr><th>{what}</th>{head}</tr>{body}</table>"


def _hours(result: Result) -> list[float]:
    return [(point.now_us - result.begin_us) / HOUR_US for point in result.points]


def _over_time(axes: Any, result: Result) -> None:
    hours = _hours(result)
    busy = [point.busy for point in result.points]
    stranded = [point.busy + point.stranded for point in result.points]
    axes.fill_between(hours, busy, step="post", label="in use")
    axes.fill_between(
        hours, busy, stranded, step="post", alpha=0.5, label="free, on nodes partly in use"
    )
    axes.axhline(result.gpus, color="grey", linewidth=1)
    axes.set(xlabel="hours", ylabel="GPUs", ylim=(0, None))
    axes.legend(loc="lower right")


def _queue(axes: Any, result: Result) -> None:
    hours = _hours(result)
    axes.step(hours, [point.waiting for point in result.points], where="post", label="wait")
    axes.step(hours, [point.running for point in result.points], where="post", label="run")
    axes.set(xlabel="hours", ylabel="jobs", ylim=(0, None))
    axes.legend()


def _cumulative(axes: Any, values: Sequence[float], label: str) -> None:
    every = max(1, len(values) // POINTS)
    parts = [(i + 1) / len(values) for i in range(len(values))]
    axes.step([*values[::every], values[-1]], [*parts[::every], 1.0], where="post", label=label)


def _waits(axes: Any, result: Result) -> None:
    waits = sorted(
        (run.started_us - run.job.submit_us) / HOUR_US
        for run in result.runs
        if run.started_us is not None
    )
    if waits:
        _cumulative(axes, waits, "all")
    axes.set(xlabel="hours", ylabel="part of the jobs", ylim=(0, 1.02))
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(0, None)


def _by_size(axes: Any, result: Result) -> None:
    order = {name: i for i, (_, name) in enumerate(SIZES)}
    groups = sorted(result.summary.by_size, key=lambda group: order.get(group.name, len(order)))
    spots = range(len(groups))
    for shift, name in ((-0.2, "avg_jct_s"), (0.2, "p99_jct_s")):
        values = [getattr(group, name) / 3600 for group in groups]
        axes.bar([i + shift for i in spots], values, 0.4, label=name.split("_")[0])
    axes.set_xticks(list(spots), [group.name for group in groups])
    axes.set(xlabel="GPUs", ylabel="hours")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.legend()


def _accounts(axes: Any, result: Result) -> None:
    shares = sorted(result.summary.shares, key=lambda share: -share.used)[:20]
    spots = range(len(shares))
    axes.bar([i - 0.2 for i in spots], [share.used for share in shares], 0.4, label="had")
    axes.bar([i + 0.2 for i in spots], [share.fair for share in shares], 0.4, label="fair")
    axes.set_xticks(list(spots), [share.account or "(none)" for share in shares], rotation=45)
    axes.set(ylabel="part of the GPU time")
    if shares:
        axes.legend()
