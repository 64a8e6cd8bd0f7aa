"""Options of the test run."""

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--no-skip",
        action="store_true",
        help="a skipped test fails: for machines that must be able to run everything",
    )


def _skip_becomes_failure(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"--no-skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    return _skip_becomes_failure(report) if item.config.getoption("--no-skip") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return _skip_becomes_failure(report) if collector.config.getoption("--no-skip") else report
