"""Tables and plots of a study."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from salt_hls.errors import UserError
from salt_hls.studies.compare import SIGMAS, Estimate, RowResult, Verdict, row_results
from salt_hls.studies.study import BASE, Results, Study
from salt_hls.system.store import replacing
from salt_hls.system.wording import command

BEGIN = "<!-- ablations: written by `make results` -->"
END = "<!-- end of ablations -->"

COLORS: dict[Verdict | None, str] = {
    "holds": "tab:green",
    "does not hold": "tab:red",
    "cannot be decided": "tab:gray",
    None: "tab:blue",
}
SHOWN = 3.0
"""Points to either side in the plot of differences."""

ARCHITECTURES = (("SAL-T", ""), ("Linformer", "linformer"), ("full attention", "full"))


def render(study: Study, results: Results, document: Path) -> list[Path]:
    """Renews the tables in `document`, between two marker lines, and the plots beside the results.

    Returns what it wrote. Raises `UserError` without results, or when the document cannot be read.
    """
    rows = row_results(study, results)
    if not rows:
        raise UserError(
            f"{results.path}: no results of this study yet; {command('results')} makes them"
        )
    plots = [results.study.with_suffix(".png"), results.study.with_name("particles.png")]
    plot_differences(study, rows, plots[0])
    plot_particles(study, rows, plots[1])
    folder = results.study.parent.relative_to(document.parent)
    links = [f"![{p.stem}]({folder / p.name})" for p in plots]
    text = "\n\n".join([BEGIN, _introduction(study), *links, *tables(study, rows), END])
    with replacing(document) as partial:
        partial.write_text(_inserted(document, text), encoding="utf-8")
    return [document, *plots]


def tables(study: Study, rows: dict[str, RowResult]) -> list[str]:
    """One Markdown section for each group that has results."""
    sections = []
    for group, title in study.groups.items():
        lines = [
            f"### {title}\n",
            "| row | | seeds | accuracy, % | mean AUC | weights | difference, points | claim | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        members = [n for n, r in study.rows.items() if r.group == group and n in rows]
        for name in members:
            row, result = study.rows[name], rows[name]
            difference = "" if result.difference is None else _points(result.difference, "+")
            if row.against and not row.expect:
                difference += f" to `{row.against}`"
            claim = f"{row.expect} than" if row.expect in ("worse", "better") else "same as"
            cells = (
                f"`{name}`",
                row.what,
                result.accuracy.seeds,
                _points(result.accuracy),
                f"{result.auc:.4f}",
                result.parameters,
                difference,
                f"{claim} `{row.against}`" if row.expect else "",
                f"**{result.verdict}**" if result.verdict else "",
            )
            lines.append(f"| {' | '.join(str(c) for c in cells)} |")
        if members:
            sections.append("\n".join(lines))
    return sections


def plot_differences(study: Study, rows: dict[str, RowResult], path: Path) -> None:
    """Every difference with its judged interval, by group; the color is the verdict.

    The axis ends at `SHOWN`: a larger difference is written at its end.
    """
    shown = [
        (name, result.difference, result.verdict)
        for group in study.groups
        for name, row in study.rows.items()
        if row.group == group
        and (result := rows.get(name)) is not None
        and result.difference is not None
    ]
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(shown)), layout="constrained")
    axis = figure.subplots()
    used: set[Verdict | None] = set()
    for y, (_, difference, verdict) in enumerate(shown):
        value = 100 * difference.mean
        if abs(value) > SHOWN:
            end = SHOWN if value > 0 else -SHOWN
            axis.annotate(
                f"{value:+.1f}", (end, y), (0.8 * end, y), va="center", ha="center",
                arrowprops={"arrowstyle": "->", "color": COLORS[verdict]}, color=COLORS[verdict],
            )  # fmt: skip
            continue
        axis.errorbar(
            value, y, xerr=100 * SIGMAS * difference.error, fmt="o", capsize=3,
            color=COLORS[verdict], label=None if verdict in used else verdict or "no claim",
        )  # fmt: skip
        used.add(verdict)
    axis.axvspan(-100 * study.margin, 100 * study.margin, color="0.92", zorder=0)
    axis.axvline(0, color="0.5", linewidth=0.8)
    labels = [
        name if study.rows[name].against == BASE else f"{name} - {study.rows[name].against}"
        for name, *_ in shown
    ]
    axis.set_yticks(range(len(shown)), labels)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlim(-SHOWN, SHOWN)
    axis.set_xlabel(f"difference of accuracy to {BASE}, or as named [points], 95 %")
    if shown:
        axis.legend(title="claim", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_particles(study: Study, rows: dict[str, RowResult], path: Path) -> None:
    """Accuracy against the number of particles, for each architecture."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for label, prefix in ARCHITECTURES:
        names = [prefix or BASE, *(f"{prefix}_n{n}".lstrip("_") for n in (16, 64, 150))]
        points = sorted(
            (study.settings(name, 1).model.particles, rows[name].accuracy)
            for name in names
            if name in rows
        )
        axis.errorbar(
            [n for n, _ in points],
            [100 * e.mean for _, e in points],
            yerr=[100 * e.error for _, e in points],
            marker="o", capsize=3, label=label,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks((16, 32, 64, 150), ("16", "32", "64", "150"))
    axis.minorticks_off()
    axis.set_xlabel("particles N")
    axis.set_ylabel("accuracy [%]")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def _points(estimate: Estimate, sign: str = "") -> str:
    return f"{100 * estimate.mean:{sign}.2f} ± {100 * estimate.error:.2f}"


def _introduction(study: Study) -> str:
    training = study.settings(BASE, 1).training
    phases = ", ".join(
        f"{p.epochs} epochs of batches of {p.batch} at {p.learning_rate:g}"
        for p in training.float_phases
    )
    return (
        f"Every row: the same {study.training_jets:,} training jets, {phases}, the averaged "
        f"weights of the epoch with the least loss on {study.validation_jets:,} validation jets. "
        "± is one standard error, of the seeds (the median over the rows, or the row's own "
        "when larger) and of the test jets; "
        "differences are taken jet by jet. A claim is judged with three seeds or more, at 95 %; "
        f"differences below {100 * study.margin:.1f} points do not matter: "
        "a claimed gain *does not hold* when it is certainly smaller; rows are the *same* when "
        "they certainly differ by less, which *does not hold* when they certainly differ. "
        "Rows on widths start from the float weights of `bounded`."
    )


def _inserted(document: Path, text: str) -> str:
    """The document with the section replaced, or appended."""
    try:
        old = document.read_text(encoding="utf-8") if document.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{document}: cannot be read ({error})") from None
    if BEGIN not in old or END not in old:
        return f"{old.rstrip()}\n\n## Rivals and ablations\n\n{text}\n".lstrip()
    before, rest = old.split(BEGIN, 1)
    return before + text + rest.split(END, 1)[1]
