package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * A file of stages: `stage_k` computes up to exit k, `policy_k` scores it, and a request leaves where the score is above
 * 0 or no later exit is allowed. What lies behind that exit is never run.
 */
final class Staged extends Engine {
  private static final String SCORE = "score";
  private static final int WARM_UP = 3;

  private final int count;
  private final Map<String, SignatureRuntime.Spec> modelInputs;
  private final String[][] stageInputs;
  private final String[][] policyInputs;
  private double[] microseconds;

  Staged(ModelInfo info, SignatureRuntime runtime) {
    super(info, runtime);
    count = info.numExits();
    microseconds = info.exitMicroseconds();
    Set<String> present = new HashSet<>(Arrays.asList(runtime.signatures()));
    modelInputs = present.contains(stage(0)) ? runtime.inputs(stage(0)) : null;
    stageInputs = new String[count][];
    policyInputs = new String[count - 1][];
    Set<String> carried = modelInputs == null ? null : modelInputs.keySet();
    for (int k = 0; k < count; k++) {
      stageInputs[k] = check(present, stage(k), carried, OUTPUT);
      carried = new HashSet<>(runtime.outputs(stage(k)).keySet());
      if (k < count - 1) {
        Set<String> known = new HashSet<>(carried);
        if (info.takesTradeOff()) {
          known.add(TRADE_OFF);
        }
        policyInputs[k] = check(present, policy(k), known, SCORE);
      }
    }
  }

  /** Checks that a signature is there, takes only what is known by then, and gives the output. */
  private String[] check(Set<String> present, String signature, Set<String> known, String output) {
    if (!present.contains(signature)) {
      throw new IllegalArgumentException("Invalid staged model. Expected a signature `" + signature + "` for its " + count
          + " exits. Received: " + present);
    }
    Map<String, SignatureRuntime.Spec> inputs = runtime.inputs(signature);
    Map<String, SignatureRuntime.Spec> outputs = runtime.outputs(signature);
    expectFloats(signature, inputs);
    expectFloats(signature, outputs);
    if (!known.containsAll(inputs.keySet()) || !outputs.containsKey(output)) {
      throw new IllegalArgumentException("Invalid staged model. Expected signature `" + signature + "` to take some of "
          + known + " and to give `" + output + "`. Received: " + inputs.keySet() + " and " + outputs.keySet());
    }
    return inputs.keySet().toArray(new String[0]);
  }

  @Override
  Map<String, SignatureRuntime.Spec> modelInputs() {
    return modelInputs;
  }

  @Override
  Prediction predict(Map<String, ByteBuffer> given, Budget budget) {
    long started = System.nanoTime();
    ExitBudget bounds = ExitBudget.of(budget, info, true, microseconds);
    Map<String, ByteBuffer> carry = checkInputs(given);
    ByteBuffer tradeOff = scalar(bounds.tradeOff);
    runtime.takeKernelMacs();
    double[] macs = new double[2];
    int exit = 0;
    for (; ; exit++) {
      carry = run(stage(exit), only(stageInputs[exit], carry));
      add(macs, exit, carry, exit < bounds.maxExit);
      if (exit == bounds.maxExit || score(exit, carry, tradeOff) > 0) {
        break;
      }
    }
    float[] scores = floats(carry.get(OUTPUT));
    long latency = System.nanoTime() - started;
    long kernels = runtime.takeKernelMacs();
    return new Prediction(Collections.singletonMap(OUTPUT, scores), OUTPUT, label(scores), exit, latency,
        macs[0] + (kernels >= 0 ? kernels : macs[1]));
  }

  /** Adds what a stage and its policy executed: builtin operators, and the package's ops in full. */
  private void add(double[] macs, int stage, Map<String, ByteBuffer> outputs, boolean decides) {
    if (info.stageMacs().length == 0) {
      macs[0] = Double.NaN;
      return;
    }
    double[] known = info.stageMacs()[stage];
    float[] ran = info.stageHasBranches(stage) && outputs.containsKey(MACS) ? floats(outputs.get(MACS)) : null;
    macs[0] += (ran == null ? known[0] : ran[0]) + (decides ? known[2] : 0);
    macs[1] += ran == null ? known[1] : ran[1];
  }

  private float score(int exit, Map<String, ByteBuffer> stageOutputs, ByteBuffer tradeOff) {
    Map<String, ByteBuffer> known = new HashMap<>(stageOutputs);
    known.put(TRADE_OFF, tradeOff);
    ByteBuffer score = run(policy(exit), only(policyInputs[exit], known)).get(SCORE);
    return floats(score)[0];
  }

  @Override
  double[] measure(ByteBuffer input, int repetitions) {
    if (repetitions < 1) {
      throw new IllegalArgumentException(
          "Invalid value for argument `repetitions`. Expected at least 1. Received: " + repetitions);
    }
    ByteBuffer tradeOff = scalar(info.defaultTradeOff());
    double[][] times = new double[count][repetitions];
    for (int i = -WARM_UP; i < repetitions; i++) {
      Map<String, ByteBuffer> carry = checkInputs(Collections.singletonMap(onlyInput(), input));
      for (int k = 0; k < count; k++) {
        long started = System.nanoTime();
        carry = run(stage(k), only(stageInputs[k], carry));
        if (k < count - 1) {
          score(k, carry, tradeOff);
        }
        times[k][Math.max(i, 0)] = (System.nanoTime() - started) / 1e3; // what warms up is written over
      }
    }
    double[] costs = new double[count];
    for (int k = 0; k < count; k++) {
      Arrays.sort(times[k]);
      costs[k] = (k == 0 ? 0 : costs[k - 1]) + times[k][repetitions / 2];
    }
    microseconds = costs;
    return costs.clone();
  }

  private static Map<String, ByteBuffer> only(String[] names, Map<String, ByteBuffer> values) {
    Map<String, ByteBuffer> chosen = new HashMap<>();
    for (String name : names) {
      chosen.put(name, values.get(name));
    }
    return chosen;
  }

  private static String stage(int exit) {
    return "stage_" + exit;
  }

  private static String policy(int exit) {
    return "policy_" + exit;
  }
}
