package io.github.kerasefficient;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/** What one request gave. Immutable but for the arrays, which belong to the caller. */
public final class Prediction {
  private final Map<String, float[]> outputs;
  private final String main;
  private final String label;
  private final int exitIndex;
  private final long latencyNanos;
  private final double executedMacs;

  Prediction(Map<String, float[]> outputs, String main, String label, int exitIndex, long latencyNanos,
      double executedMacs) {
    this.outputs = Collections.unmodifiableMap(new LinkedHashMap<>(outputs));
    this.main = main;
    this.label = label;
    this.exitIndex = exitIndex;
    this.latencyNanos = latencyNanos;
    this.executedMacs = executedMacs;
  }

  /** The model's scores, one per class, as the model gives them (usually logits). */
  public float[] scores() {
    return outputs.get(main);
  }

  /** All outputs of the model by name, flattened; those that the exporter added are not among them. */
  public Map<String, float[]> outputs() {
    return outputs;
  }

  /** The softmax of {@link #scores()}, for models whose scores are logits. */
  public float[] softmax() {
    float[] scores = scores();
    float highest = Float.NEGATIVE_INFINITY;
    for (float score : scores) {
      highest = Math.max(highest, score);
    }
    float[] shares = new float[scores.length];
    double sum = 0;
    for (int i = 0; i < scores.length; i++) {
      shares[i] = (float) Math.exp((double) scores[i] - highest);
      sum += shares[i];
    }
    for (int i = 0; i < scores.length; i++) {
      shares[i] = (float) (shares[i] / sum);
    }
    return shares;
  }

  /** The index of the highest score; the first of them where several are equal. */
  public int labelIndex() {
    return highest(scores());
  }

  /** The name of the class with the highest score, null where the model has no labels. */
  public String label() {
    return label;
  }

  /** The exit taken, 0 for the first; -1 for a model without exits. */
  public int exitIndex() {
    return exitIndex;
  }

  /** Nanoseconds from the input to the scores: all stages, policies and copies between them. */
  public long latencyNanos() {
    return latencyNanos;
  }

  /** Multiply-accumulates that ran, NaN where the model does not know. */
  public double executedMacs() {
    return executedMacs;
  }

  static int highest(float[] scores) {
    int best = 0;
    for (int i = 1; i < scores.length; i++) {
      if (scores[i] > scores[best]) {
        best = i;
      }
    }
    return best;
  }
}
