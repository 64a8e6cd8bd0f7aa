"""`report.html`: one file that needs nothing else, pictures inside."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 860px; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { background: #f2f8fc; }
img { max-width: 100%; }
.quiet { color: #666; font-size: 0.9rem; }
ul.losses { background: #fdf3ec; border-left: 4px solid #D55E00; padding: 0.7rem 0.7rem 0.7rem 2rem; }
"""
NO_PICTURES = (
    "The pictures need matplotlib, which is not installed: "
    'pip install "keras-efficient[plots]", then run the demo again.'
)


def page(report: Mapping[str, Any], pictures: Mapping[str, bytes] | None) -> str:
    """The page for a report (see `report.json`), with PNG pictures by title, or None where matplotlib is missing."""
    parts = [
        f"<h1>keras-efficient demo: {_text(report['data'])}</h1>",
        f'<p class="quiet">{_text(_where(report))}</p>',
        "<h2>What is lost</h2>",
        _losses(report["losses"]),
        "<h2>Measured</h2>",
        _rows(report["rows"]),
        f'<p class="quiet">{_text(_how(report))}</p>',
    ]
    if pictures is None:
        parts.append(f"<p>{_text(NO_PICTURES)}</p>")
    for title, content in (pictures or {}).items():
        source = base64.b64encode(content).decode()
        parts.append(f'<h2>{_text(title)}</h2><img alt="{_text(title)}" src="data:image/png;base64,{source}">')
    parts += [
        "<h2>Policies on the test images</h2>",
        _policies(report),
        "<h2>Same numbers everywhere</h2>",
        _parity(report["parity"]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>keras-efficient demo: {_text(report['data'])}</title>\n<style>{STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _where(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Seed {report['seed']}, {report['epochs']} epochs, {report['seconds']:.0f} s on {machine['cpu']} "
        f"({machine['cores']} cores), {machine['system']}, Python {machine['python']}, {versions}."
    )


def _how(report: Mapping[str, Any]) -> str:
    return (
        f"{report['test_images']} test images, one pass each at batch 1, {report['threads']} thread(s); the rows take "
        "turns in blocks, so that whatever else the machine does hits all alike, and a run that another program "
        "interrupts is repeated. static_small is the static network "
        "narrowed to the multiply-adds that the dynamic one needs on average; static_int8 is the static network with "
        "the converter's own post-training quantisation."
    )


def _losses(sentences: Sequence[str]) -> str:
    if not sentences:
        return "<p>No comparison in this run.</p>"
    return '<ul class="losses">' + "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "</ul>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    static = next(row["latency_us"] for row in rows if row["name"] == "static")
    lines = []
    for row in rows:
        cells = [
            row["name"],
            f"{row['accuracy']:.2%}",
            f"{row['expected_macs']:,.0f}",
            f"{row['latency_us']:,.1f}",
            f"{row['latency_p50_us']:,.1f}",
            f"{row['latency_p95_us']:,.1f}",
            f"{row['latency_us'] / static:.2f}",
            f"{row['bytes']:,}",
        ]
        lines.append(_line(cells, "ours" if row["name"].startswith("dynamic") else ""))
    headings = ("", "accuracy", "expected MACs", "mean, us", "median, us", "p95, us", "beside static", "bytes")
    return _table(headings, lines)


def _policies(report: Mapping[str, Any]) -> str:
    lines = []
    for name, result in report["policies"].items():
        mark = " (deployed)" if name == report["deployed"] else ""
        exits = " / ".join(f"{share:.0%}" for share in result["exits"])
        reward = f"{result['validation_reward']:.4f}" if "validation_reward" in result else ""
        every = "yes" if result.get("takes_every_exit") else "no"
        lines.append(_line([name + mark, f"{result['accuracy']:.2%}", f"{result['cost']:.3f}", exits, reward, every]))
    headings = (
        "",
        "accuracy",
        "cost (1: never leaves)",
        "exits taken",
        "reward on the choosing half",
        "takes every exit",
    )
    return _table(headings, lines)


def _parity(parity: Mapping[str, Any]) -> str:
    coverage = parity["coverage"]
    lines = []
    for name, title in (
        ("keras_vs_stock", "Keras and the stock runtime"),
        ("stock_vs_delegate", "stock runtime and delegate"),
    ):
        if parity[name] is not None:
            others = f"{parity['other_exit'][name]} inputs left at another exit"
            lines.append(f"{title} differ by at most {parity[name]:.1e} ({others}).")
    exits = ", ".join(f"{count} at exit {number}" for number, count in enumerate(coverage["exits"], start=1))
    gates = f"{coverage['open_gates']:,} open and {coverage['shut_gates']:,} shut gates met"
    covered = f"Over {coverage['inputs']} inputs: {exits}; {gates}."
    if not coverage["complete"]:
        covered += " They do not cover every exit and both states of gates."
    return "<p>" + "<br>".join(_text(line) for line in [*lines, covered]) + "</p>"


def _table(headings: Sequence[str], lines: Sequence[str]) -> str:
    return (
        "<table><tr>"
        + "".join(f"<th>{_text(heading)}</th>" for heading in headings)
        + "</tr>"
        + "".join(lines)
        + "</table>"
    )


def _line(cells: Sequence[str], kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return f"<tr{mark}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
