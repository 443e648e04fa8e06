"""What a search found: a table, a plot of the front, and a YAML for each of its points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from salt_hls.report.budget import Budget, limit_of
from salt_hls.studies.explore import Checked, Point, Search, Space
from salt_hls.system.store import replacing
from salt_hls.system.wording import command

LABELS = {"lut": "LUT (estimate)", "latency_ns": "latency, ns (estimate)"}


def write(found: Search, space: Space, budget: Budget, folder: Path) -> list[Path]:
    """explore.json, explore.md, front.png and a YAML for each point of the front, in `folder`."""
    limit = limit_of(budget, space.explore.cost)
    paths = [folder / "explore.json", folder / "explore.md", folder / "front.png"]
    with replacing(paths[0]) as partial:
        partial.write_text(found.model_dump_json(indent=1) + "\n")
    with replacing(paths[1]) as partial:
        partial.write_text(document(found, budget, limit), encoding="utf-8")
    plot(found, budget, limit, paths[2])
    for point in found.front:
        paths.append(folder / f"{found.model}_e{point.number}.yaml")
        about = (
            f"# Point {point.number} that `salt-hls explore` found of {space.path.name}: accuracy "
            f"{point.accuracy:.4f}\n# after a short training, {point.lut:,} LUT and "
            f"{point.latency_ns:g} ns by estimate.\n"
        )
        with replacing(paths[-1]) as partial:
            partial.write_text(about + yaml.safe_dump(space.yaml(point.values), sort_keys=False))
    return paths


def error_of(accuracy: float, jets: int) -> float:
    """Standard error of an accuracy on so many jets."""
    return float((accuracy * (1 - accuracy) / jets) ** 0.5)


def document(found: Search, budget: Budget, limit: float | None) -> str:
    """All points as a Markdown table, the front in bold, and what the long trainings say."""
    keys = list(found.vary)
    head = ["point", *(f"`{key}`" for key in keys), "accuracy, %", "LUT", "FF", "latency, ns", "II"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    front = {point.number for point in found.front}
    for point in sorted(found.points, key=lambda p: (found.cost_of(p), -p.accuracy)):
        bold = "**" if point.number in front else ""
        cells = [
            f"{bold}{point.number}{bold}",
            *(_short(point.values[key]) for key in keys),
            f"{100 * point.accuracy:.2f}",
            f"{point.lut:,}",
            f"{point.ff:,}",
            f"{point.latency_ns:g}",
            str(point.ii_cycles),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    shown = "none" if limit is None else f"{limit:,.0f}"
    seconds = sum(point.seconds for point in found.points)
    text = [
        f"# Search around {found.model}",
        f"{len(found.points)} points trained on {found.training_jets:,} jets each, "
        f"{len(found.given_up)} more given up after their float training; {seconds / 60:.0f} "
        "minutes of a core. Accuracy: of the quantized model on "
        f"{found.validation_jets:,} validation jets, "
        f"± {100 * error_of(found.points[0].accuracy, found.validation_jets):.2f}. LUT, FF, "
        "latency and II are estimates before any synthesis, as of `salt-hls synth --tool "
        "estimate`. **Bold**: on the front. "
        f"{LABELS[found.cost]} that the budget `{budget.name}` allows: {shown}.",
        "![front](front.png)",
        "\n".join(lines),
        "## Does the short training rank them?",
        *_ranking(found),
    ]
    return "\n\n".join(text) + "\n"


def _ranking(found: Search) -> list[str]:
    """The table of the long trainings, and the verdict."""
    lines = [
        f"| point | {found.training_jets:,} jets, % | {found.all_jets:,} jets, % | LUT |",
        "|---|---|---|---|",
        *(
            f"| {c.number} | {100 * c.short:.2f} | {100 * c.long:.2f} | {c.lut:,} |"
            for c in found.checked
        ),
    ]
    return ["\n".join(lines), verdict(found.checked, found.validation_jets)]


def verdict(checked: list[Checked], jets: int) -> str:
    """Whether the short and the long training give the points the same order.

    Two points that are within two standard errors of each other in either training have none.
    """
    ordered = sorted(checked, key=lambda c: -c.short)
    swapped, undecided = [], []
    for i, better in enumerate(ordered):
        for worse in ordered[i + 1 :]:
            error = 2 * (error_of(better.long, jets) ** 2 + error_of(worse.long, jets) ** 2) ** 0.5
            pair = f"{better.number} and {worse.number}"
            if min(better.short - worse.short, abs(better.long - worse.long)) < error:
                undecided.append(pair)
            elif better.long < worse.long:
                swapped.append(pair)
    text = "Yes: the long training gives the same order."
    if swapped:
        text = f"No: {', '.join(swapped)} change places in the long training."
    elif len(undecided) == len(ordered) * (len(ordered) - 1) // 2:
        text = "It cannot be decided."
    if undecided:
        text += f" Within two standard errors of each other: {', '.join(undecided)}."
    return text


def plot(found: Search, budget: Budget, limit: float | None, path: Path) -> None:
    """Accuracy against cost, the front as a line, the long trainings, the budget's limit."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    front = found.front

    def draw(points: list[Point], style: str, **options: Any) -> None:
        costs = [found.cost_of(p) for p in points]
        axis.plot(costs, [100 * p.accuracy for p in points], style, **options)

    draw(found.points, "o", color="0.7", label=f"trained on {found.training_jets:,} jets")
    draw(front, "o-", color="tab:blue", drawstyle="steps-post", label="front")
    for point in front:
        at = found.cost_of(point), 100 * point.accuracy
        axis.annotate(f" {point.number}", at, va="top", fontsize="small")
    axis.plot(
        [float(getattr(c, found.cost)) for c in found.checked],
        [100 * c.long for c in found.checked],
        "*", color="tab:red", label=f"trained on {found.all_jets:,} jets",
    )  # fmt: skip
    if limit is not None:
        axis.axvline(limit, color="tab:green", linestyle="--", label=f"budget {budget.name}")
    axis.set_xscale("log")
    axis.set_xlabel(LABELS[found.cost])
    axis.set_ylabel("accuracy on validation jets [%]")
    axis.set_title(f"{found.model}: {len(found.points)} points")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def next_step(found: Search, paths: list[Path]) -> str:
    """What to do with the most accurate point of the front."""
    best = found.front[-1]
    (path,) = (p for p in paths if p.stem == f"{found.model}_e{best.number}")
    return f"the most accurate of the front: {command('train', path)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
