"""The one table of the demo."""

from collections.abc import Sequence

from rich.table import Table

from keras_efficient.demo.measure import Row


def table(rows: Sequence[Row], title: str) -> Table:
    """Accuracy, MACs, latency and bytes of every row, with the latency beside that of `static`."""
    static = next((row.latency_us for row in rows if row.name == "static"), None)
    made = Table(title=title, title_justify="left")
    made.add_column("")
    for heading in ("accuracy", "expected MACs", "mean latency", "median", "p95", "beside static", "bytes"):
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(
            row.name,
            f"{row.accuracy:.2%}",
            f"{row.expected_macs:,.0f}",
            f"{row.latency_us:,.1f} us",
            f"{row.latency_p50_us:,.1f} us",
            f"{row.latency_p95_us:,.1f} us",
            f"{row.latency_us / static:.2f} x" if static else "-",
            f"{row.bytes:,}",
        )
    return made
