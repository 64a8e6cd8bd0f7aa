"""The Java class that an Android folder brings: opens the model and runs one input, made for this very model."""

import json
from collections.abc import Mapping
from typing import Any

CLASS = "ModelExample"
FILE = f"{CLASS}.java"


def java_snippet(name: str, entries: Mapping[str, Any], inputs: Mapping[str, list[int]], dependency: str) -> str:
    """The source of `ModelExample.java`, which compiles against the Android library.

    Args:
        name: Name of the model file.
        entries: The model's metadata.
        inputs: Shapes by input name; with one input the class takes `float[]`, with several a map of buffers.
        dependency: The lines for `build.gradle`.
    """
    one = len(inputs) == 1
    scaled = one and "normalization" in entries
    argument = "float[] input" if one else "Map<String, ByteBuffer> inputs"
    given = "input" if one else "inputs"
    budget = _budget(entries)
    shapes = ", ".join(f"{key} {shape}" for key, shape in inputs.items())
    comment = [
        f"Runs {name}.",
        "",
        "<p>In {@code build.gradle}:",
        "",
        "<pre>{@code",
        *dependency.splitlines(),
        "}</pre>",
    ]
    body = [
        "try (DynamicModel model = DynamicModel.open(file)) {",
        *(["  float[] scaled = model.info().normalization().apply(input);"] if scaled else []),
        f"  return model.predict({'scaled' if scaled else given}, budget);",
        "}",
    ]
    used = [] if one else ["java.nio.ByteBuffer", "java.util.Map"]
    ours = ["Budget", "DynamicModel", "Prediction"]
    imports = sorted(["java.io.File", "java.io.IOException", *used, *(f"io.github.kerasefficient.{c}" for c in ours)])
    values = "raw values, normalised here" if scaled else "values as the network was trained on them"
    lines = [
        *(f"import {entry};" for entry in imports),
        "",
        "/**",
        *(f" * {line}".rstrip() for line in comment),
        " */",
        f"public final class {CLASS} {{",
        f"  private {CLASS}() {{}}",
        "",
        "  /**",
        "   * Runs one input and closes the model; an app keeps it open.",
        "   *",
        f"   * @param file {name}, copied out of the app's assets.",
        f"   * @param {given} {values}: {shapes}.",
        f"   * @param budget such as {{@code {budget}}}.",
        "   */",
        f"  public static Prediction run(File file, {argument}, Budget budget) throws IOException {{",
        *(f"    {line}" for line in body),
        "  }",
        "",
        "  /** A line on what came out. */",
        "  public static String describe(Prediction prediction) {",
        '    return prediction.label() + " at exit " + (prediction.exitIndex() + 1) + " after "',
        '        + prediction.latencyNanos() / 1000 + " us";',
        "  }",
        "",
        "  /** The budget of a request that may not cost much. */",
        "  public static Budget small() {",
        f"    return {budget};",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _budget(entries: Mapping[str, Any]) -> str:
    """An expression for a budget that this model can keep."""
    known = entries.get("trade_off")
    if known is not None:
        return f"Budget.none().withTradeOff({json.dumps(float(known['max']))}f)"
    exits = len(entries.get("exits", []))
    if exits and (entries.get("staged") or entries.get("budget_inputs")):
        return "Budget.none().withMaxExit(0)"
    return "Budget.none()"
