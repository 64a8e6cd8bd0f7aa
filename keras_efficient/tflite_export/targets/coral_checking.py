"""`coral_check`: what the Edge TPU compiler would make of a `.tflite` file, operator by operator."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.targets import edge_tpu_compiler
from keras_efficient.tflite_export.targets.coral_report import CoralReport, Finding, OperatorVerdict, Status
from keras_efficient.tflite_export.targets.edge_tpu_rules import EIGHT_BITS, GENERAL, RULES, Violation
from keras_efficient.tflite_export.targets.edge_tpu_table import Row, Table, table
from keras_efficient.tflite_export.targets.graph import Graph, Node, read_graph

POST_PROCESS = "TFLite_Detection_PostProcess"


def coral_check(path: str | os.PathLike[str], *, compile: bool = True) -> CoralReport:
    """Says which operators of a `.tflite` file the Edge TPU compiler would map, where it would cut, and how to mend it.

    The compiler maps an operator where it is supported and everything that it reads was mapped; behind the first
    operator that is not, along each path, the CPU takes over. Some things make it refuse the whole file. The facts come
    from `edge_tpu_16.json`, whose rows name their sources; the compiler itself is closed, and run when it is there.

    Args:
        path: A `.tflite` file, not yet compiled for the Edge TPU.
        compile: Whether to run `edgetpu_compiler` where it is on the PATH, and put its verdict beside ours.

    Returns:
        The `CoralReport`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no readable TFLite file.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `path`. Expected a .tflite file. Received: {str(path)!r} (not there)"
        )
    model = flatbuffer.parse(file.read_bytes())
    graph = read_graph(model)
    facts = table()
    return CoralReport(
        path=str(file),
        refusals=tuple(_refusals(model, graph, facts)),
        operators=tuple(_verdicts(graph, facts)),
        compiler=edge_tpu_compiler.run(file) if compile else None,
        table_version=facts.compiler,
    )


def _refusals(model: Any, graph: Graph, facts: Table) -> list[Finding]:
    """What makes the compiler refuse the file as a whole."""
    found = []
    nodes = [node for index in range(len(model.subgraphs)) for node in read_graph(model, index).nodes]
    for operator, version in sorted({(node.operator, node.version) for node in nodes if node.operator != "CUSTOM"}):
        newest = facts.newest.get(operator)
        if newest is None:
            reason = f"The compiler does not know the operator {operator}, which is younger than it is."
            mend = facts.rows[operator].mend if operator in facts.rows else "Use older operators instead."
            found.append(Finding("unknown_operator", reason, mend, "inferred", (facts.sources["register"],)))
        elif version > newest.version:
            reason = f"The compiler does not know version {version} of {operator}, only {newest.version} and older."
            found.append(Finding("unknown_version", reason, newest.mend, newest.certainty, newest.sources))
    customs = sorted({node.custom for node in nodes if node.operator == "CUSTOM" and node.custom != POST_PROCESS})
    if customs:
        custom = facts.rows["CUSTOM"]
        reason = f"The compiler does not know the custom ops {', '.join(customs)}."
        found.append(Finding("custom_op", reason, custom.mend, "inferred", custom.sources))
    open_shapes = [operand for operand in graph.operands if operand.open_shape]
    if open_shapes:
        reason = f"{len(open_shapes)} tensors have sizes known only at run time, such as {open_shapes[0]}."
        mend = "Export with a fixed batch_size (1) and input shapes without None."
        found.append(Finding("dynamic_shape", reason, mend, "observed", (facts.sources["edgetpu-831"],)))
    if not any(operand.scales and operand.type in EIGHT_BITS for operand in graph.operands):
        mend = "Quantise it: export(target='coral', representative_data=...)."
        sources = (facts.sources["edgetpu-168"],)
        found.append(Finding("not_quantized", "The model is not quantised.", mend, "observed", sources))
    return found


def _verdicts(graph: Graph, facts: Table) -> list[OperatorVerdict]:
    """The verdict on every operator of the main subgraph, in the order of execution."""
    verdicts: list[OperatorVerdict] = []
    maker = {operand.index: node.index for node in graph.nodes for operand in node.outputs}
    for node in graph.nodes:
        sources = [verdicts[maker[operand.index]] for operand in node.activations if operand.index in maker]
        boundary = _boundary(node, graph, facts)
        findings = [boundary] if boundary is not None else _findings(node, facts)
        status = _status(boundary is not None, findings, sources)
        first = status is Status.CPU and all(source.status in (Status.EDGE_TPU, Status.HOST) for source in sources)
        outputs = ", ".join(operand.name for operand in node.outputs)
        name = node.custom or node.operator
        verdicts.append(OperatorVerdict(node.index, name, node.version, outputs, status, tuple(findings), first))
    return verdicts


def _status(boundary: bool, findings: Sequence[Finding], sources: Sequence[OperatorVerdict]) -> Status:
    if boundary:
        return Status.HOST
    if any(not finding.doubt for finding in findings):
        return Status.CPU
    mapped = all(source.status in (Status.EDGE_TPU, Status.HOST) for source in sources)
    return Status.EDGE_TPU if mapped else Status.BEHIND


def _boundary(node: Node, graph: Graph, facts: Table) -> Finding | None:
    """A conversion from a float input or to a float output of the file: the CPU does it, and nothing is cut."""
    source, target = node.inputs[0] if node.inputs else None, node.outputs[0]
    if source is None:
        return None
    sides = {
        "QUANTIZE": (source.index in graph.inputs and source.type == "float32", "float_input", source),
        "DEQUANTIZE": (target.index in graph.outputs and target.type == "float32", "float_output", target),
    }
    is_boundary, rule, operand = sides.get(node.operator, (False, "", source))
    if not is_boundary:
        return None
    return Finding(
        rule,
        f"{operand} is float32: the CPU converts it in every call.",
        "Export with int8 inputs and outputs, and quantise on the host, once.",
        "recalled",
        (facts.sources["requirements"],),
        doubt=True,
    )


def _findings(node: Node, facts: Table) -> list[Finding]:
    """What keeps an operator off the Edge TPU, or might."""
    row = facts.row(node.operator)
    if not row.supported:
        name = node.custom or node.operator
        reason = f"{name} is not an operation of the Edge TPU."
        return [Finding("unsupported_operator", reason, row.mend, row.certainty, row.sources)]
    general = [(rule.__name__, rule(node)) for rule in GENERAL]
    special = [(name, RULES[name](node)) for name in row.rules]
    urls = (facts.sources["requirements"], facts.sources["axis-tips"])
    return [
        *(_finding(name, violation, "documented", urls) for name, violation in general if violation is not None),
        *(_finding(name, found, *_support(name, row, facts)) for name, found in special if found is not None),
    ]


def _support(rule: str, row: Row, facts: Table) -> tuple[str, tuple[str, ...]]:
    """How sure a rule is and who says so: the row, but for rules that have sources of their own."""
    if rule == "constant_parameters":
        return "observed", (facts.sources["requirements"], facts.sources["edgetpu-25"])
    if rule == "large_map":
        return "observed", (facts.sources["edgetpu-461"],)
    if rule == "one_scale_weights":
        return "inferred", (facts.sources["micro-2602"],)
    return row.certainty, row.sources


def _finding(rule: str, violation: Violation, certainty: str, sources: tuple[str, ...]) -> Finding:
    return Finding(rule, violation.reason, violation.mend, certainty, sources, violation.doubt)
