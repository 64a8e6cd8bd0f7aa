package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** A file that decides its exits itself: one signature, which may take the budget as further inputs. */
final class SingleFile extends Engine {
  private final String signature;
  private final Map<String, SignatureRuntime.Spec> modelInputs;
  private final Map<String, SignatureRuntime.Spec> outputs;
  private final boolean takesBudget;
  private final boolean hasExitIndex;
  private final boolean hasMacs;
  private final String main;

  SingleFile(ModelInfo info, SignatureRuntime runtime) {
    super(info, runtime);
    String[] signatures = runtime.signatures();
    if (signatures.length != 1) {
      throw new IllegalArgumentException("Invalid model. Expected one signature. Received: "
          + Arrays.toString(signatures));
    }
    signature = signatures[0];
    modelInputs = new LinkedHashMap<>(runtime.inputs(signature));
    outputs = new LinkedHashMap<>(runtime.outputs(signature));
    takesBudget = info.takesBudget();
    if (takesBudget) {
      takeBudgetInput(MAX_EXIT, "INT32");
    }
    if (takesBudget && info.takesTradeOff()) {
      takeBudgetInput(TRADE_OFF, "FLOAT32");
    }
    hasExitIndex = info.hasExits() && outputs.containsKey(EXIT_INDEX);
    if (hasExitIndex) {
      expectType(signature, EXIT_INDEX, outputs.remove(EXIT_INDEX), "INT32");
    }
    hasMacs = info.hasBranches() && outputs.containsKey(MACS);
    if (hasMacs) {
      expectType(signature, MACS, outputs.remove(MACS), "FLOAT32");
    }
    expectFloats(signature, modelInputs);
    expectFloats(signature, outputs);
    if (modelInputs.isEmpty() || outputs.isEmpty()) {
      throw new IllegalArgumentException("Invalid model. Expected inputs and outputs in signature `" + signature + "`.");
    }
    main = outputs.containsKey(OUTPUT) ? OUTPUT : outputs.keySet().iterator().next();
  }

  private void takeBudgetInput(String name, String type) {
    SignatureRuntime.Spec spec = modelInputs.remove(name);
    if (spec == null) {
      throw new IllegalArgumentException("Invalid model. Expected the input `" + name + "`, as its metadata says. "
          + "Received: " + modelInputs.keySet());
    }
    expectType(signature, name, spec, type);
  }

  @Override
  Map<String, SignatureRuntime.Spec> modelInputs() {
    return modelInputs;
  }

  @Override
  Prediction predict(Map<String, ByteBuffer> given, Budget budget) {
    long started = System.nanoTime();
    ExitBudget bounds = ExitBudget.of(budget, info, takesBudget, info.exitMicroseconds());
    Map<String, ByteBuffer> inputs = checkInputs(given);
    if (takesBudget) {
      inputs.put(MAX_EXIT, scalar(bounds.maxExit));
      if (info.takesTradeOff()) {
        inputs.put(TRADE_OFF, scalar(bounds.tradeOff));
      }
    }
    runtime.takeKernelMacs();
    Map<String, ByteBuffer> results = run(signature, inputs);
    Map<String, float[]> values = new LinkedHashMap<>();
    for (String name : outputs.keySet()) {
      values.put(name, floats(results.get(name)));
    }
    int exit = hasExitIndex ? results.get(EXIT_INDEX).order(ByteOrder.nativeOrder()).getInt(0) : -1;
    long latency = System.nanoTime() - started;
    return new Prediction(values, main, label(values.get(main)), exit, latency, executedMacs(results, exit));
  }

  /** Builtin operators of the branches that ran, and what kernels counted or, without kernels, the ops in full. */
  private double executedMacs(Map<String, ByteBuffer> results, int exit) {
    double[] dense = info.denseMacs();
    double[][] stages = info.stageMacs();
    if (hasMacs) {
      float[] ran = floats(results.get(MACS));
      dense = new double[] {ran[0], ran[1]};
    } else if (exit >= 0 && exit < stages.length) { // a file that branches at exits only: the exit tells what ran
      dense = new double[2];
      for (int k = 0; k <= exit; k++) {
        dense[0] += stages[k][0] + stages[k][2];
        dense[1] += stages[k][1];
      }
    }
    long kernels = runtime.takeKernelMacs();
    return dense[0] + (kernels >= 0 ? kernels : dense[1]);
  }

  @Override
  double[] measure(ByteBuffer input, int repetitions) {
    throw new IllegalArgumentException(
        "Only the stages of a staged model can be measured one by one: export it with staged=True.");
  }
}
