"""What the measurements say against this package, in words: every comparison that a dynamic network loses."""

from collections.abc import Sequence

from keras_efficient.demo.measure import Row

# (ours, theirs, what is compared)
COMPARISONS = (
    ("dynamic_delegate", "static", ("accuracy", "expected_macs", "latency_us", "latency_p95_us", "bytes")),
    ("dynamic_delegate", "static_small", ("accuracy", "latency_us", "latency_p95_us", "bytes")),
    ("dynamic_delegate", "static_int8", ("accuracy", "latency_us", "latency_p95_us", "bytes")),
    ("dynamic_int8", "static_int8", ("accuracy", "expected_macs", "latency_us", "latency_p95_us", "bytes")),
    ("dynamic_int8", "dynamic_delegate", ("accuracy", "latency_us", "bytes")),
    ("dynamic_stock", "static", ("accuracy", "expected_macs", "latency_us", "latency_p95_us")),
)
CLOSE = 0.01  # latencies that differ by less than 1 % are called equal


def losses(rows: Sequence[Row], notes: Sequence[str] = ()) -> list[str]:
    """One sentence per lost comparison, and the given notes on what could not be measured, first."""
    by_name = {row.name: row for row in rows}
    found = list(notes)
    for ours, theirs, quantities in COMPARISONS:
        if ours in by_name and theirs in by_name:
            for quantity in quantities:
                sentence = SENTENCES[quantity](by_name[ours], by_name[theirs])
                if sentence:
                    found.append(sentence)
    return found


def _accuracy(ours: Row, theirs: Row) -> str | None:
    points = 100 * (theirs.accuracy - ours.accuracy)
    if points <= 1e-9:
        return None
    return (
        f"{ours.name} is less accurate than {theirs.name}: {ours.accuracy:.2%} against {theirs.accuracy:.2%} "
        f"({points:.2f} percentage points less)."
    )


def _macs(ours: Row, theirs: Row) -> str | None:
    if ours.expected_macs <= 0.5 * theirs.expected_macs:
        return None
    return (
        f"{ours.name} needs more than half of the multiply-adds of {theirs.name}: {ours.expected_macs:,.0f} against "
        f"{theirs.expected_macs:,.0f} per image."
    )


def _mean(ours: Row, theirs: Row) -> str | None:
    return _slower(ours.name, theirs.name, ours.latency_us, theirs.latency_us, "on average")


def _tail(ours: Row, theirs: Row) -> str | None:
    return _slower(ours.name, theirs.name, ours.latency_p95_us, theirs.latency_p95_us, "at the 95th percentile")


def _slower(ours: str, theirs: str, time: float, other: float, where: str) -> str | None:
    if time <= other * (1 + CLOSE):
        return None
    ratio = f"{time / other:.2f} times"
    return f"{ours} is slower than {theirs} {where}: {time:.1f} us against {other:.1f} us per image ({ratio})."


def _bytes(ours: Row, theirs: Row) -> str | None:
    if ours.bytes <= theirs.bytes:
        return None
    return (
        f"The file of {ours.name} is larger than that of {theirs.name}: {ours.bytes:,} against {theirs.bytes:,} bytes."
    )


SENTENCES = {
    "accuracy": _accuracy,
    "expected_macs": _macs,
    "latency_us": _mean,
    "latency_p95_us": _tail,
    "bytes": _bytes,
}
