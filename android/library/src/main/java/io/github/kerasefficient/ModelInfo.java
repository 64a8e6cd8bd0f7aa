package io.github.kerasefficient;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * What a model file says of itself: the JSON object that the exporter wrote into its metadata buffer {@code
 * keras_efficient}. Costs of exits are cumulative: from the input to that exit.
 */
public final class ModelInfo {
  /** The newest format of the JSON object that this library understands. */
  static final int FORMAT = 1;

  private final JSONObject json;
  private final Map<String, Integer> ops;
  private final List<String> labels;
  private final double[] exitMacs;
  private final double[] exitMicroseconds;
  private final boolean hasExits;
  private final float[] tradeOff;
  private final Normalization normalization;
  private final double[][] stageMacs;

  private ModelInfo(JSONObject json) throws JSONException {
    this.json = json;
    this.ops = readOps(json.optJSONObject("ops"));
    this.labels = readLabels(json.optJSONArray("labels"));
    JSONArray exits = json.optJSONArray("exits");
    this.hasExits = exits != null && exits.length() > 0;
    this.exitMacs = readCosts(exits, "macs");
    this.exitMicroseconds = readCosts(exits, "microseconds");
    this.tradeOff = readTradeOff(json.optJSONObject("trade_off"));
    this.normalization = readNormalization(json.optJSONObject("normalization"));
    this.stageMacs = readStageMacs(json.optJSONArray("stages"));
    if (staged() && !hasExits) {
      throw new JSONException("a staged model without `exits`");
    }
    if (stageMacs.length > 0 && stageMacs.length != numExits()) {
      throw new JSONException(stageMacs.length + " `stages` for " + numExits() + " exits");
    }
  }

  /**
   * Reads the JSON object.
   *
   * @throws IllegalArgumentException if it is no such object, or of a format newer than this library understands.
   */
  public static ModelInfo parse(String text) {
    try {
      JSONObject json = new JSONObject(text);
      int format = json.optInt("format", 0);
      if (format > FORMAT) {
        throw new IllegalArgumentException("Invalid metadata `keras_efficient`. Expected format " + FORMAT
            + " or older. Received: format " + format + ", of keras-efficient " + json.optString("version", "?"));
      }
      return new ModelInfo(json);
    } catch (JSONException error) {
      throw new IllegalArgumentException(
          "Invalid metadata `keras_efficient`. Expected a JSON object as the exporter writes it: " + error.getMessage(),
          error);
    }
  }

  /** Nothing: what is known of a file that somebody else wrote. */
  static ModelInfo empty() {
    return parse("{}");
  }

  /** The keras-efficient that wrote the file, empty where unknown. */
  public String version() {
    return json.optString("version", "");
  }

  /** {@code composite}, {@code custom} or {@code builtin}: how the file holds the package's ops. */
  public String form() {
    return json.optString("form", "builtin");
  }

  /** The package's ops in the file, with their versions. */
  public Map<String, Integer> ops() {
    return ops;
  }

  /** Whether the file holds one signature per stage, and exits are decided here, not in the file. */
  public boolean staged() {
    return json.optBoolean("staged", false);
  }

  /** Whether parts of the file run only for some inputs; such a file counts what ran in an output of its own. */
  boolean hasBranches() {
    return json.optBoolean("branches", false);
  }

  /** Whether a file that decides its exits itself takes a {@link Budget} as further inputs. */
  boolean takesBudget() {
    return json.optBoolean("budget_inputs", false);
  }

  /** Whether parts of a stage run only for some inputs; then it has an output that counts. */
  boolean stageHasBranches(int stage) {
    JSONArray stages = json.optJSONArray("stages");
    return stages != null && stages.optJSONObject(stage).optBoolean("branches", false);
  }

  /**
   * Multiply-accumulates of each stage: builtin operators, the package's ops with everything computed, the policy behind
   * the stage. Empty where the file does not say.
   */
  double[][] stageMacs() {
    return stageMacs;
  }

  /** Class names, empty where the file has none. */
  public List<String> labels() {
    return labels;
  }

  /** How many exits the model has; 1 for a model without early ones. */
  public int numExits() {
    return hasExits ? json.optJSONArray("exits").length() : 1;
  }

  /** Whether the model leaves at one of several exits. */
  public boolean hasExits() {
    return hasExits;
  }

  /** Multiply-accumulates up to each exit; empty where the file does not say. */
  public double[] exitMacs() {
    return exitMacs.clone();
  }

  /** Microseconds up to each exit, as measured for the file; empty where they were not. */
  public double[] exitMicroseconds() {
    return exitMicroseconds.clone();
  }

  /** Whether a {@link Budget} may have a trade-off. */
  public boolean takesTradeOff() {
    return tradeOff != null;
  }

  /** The lowest trade-off that the policy was trained for; NaN where it takes none. */
  public float minTradeOff() {
    return tradeOff == null ? Float.NaN : tradeOff[0];
  }

  /** The highest trade-off that the policy was trained for; NaN where it takes none. */
  public float maxTradeOff() {
    return tradeOff == null ? Float.NaN : tradeOff[1];
  }

  /** The trade-off where a {@link Budget} has none; NaN where the policy takes none. */
  public float defaultTradeOff() {
    return tradeOff == null ? Float.NaN : tradeOff[2];
  }

  /** What to do to raw inputs; null where the file does not say. */
  public Normalization normalization() {
    return normalization;
  }

  /** The whole object as text. */
  public String json() {
    return json.toString();
  }

  /** Multiply-accumulates of the builtin operators and of the package's ops with everything computed; NaN if unknown. */
  double[] denseMacs() {
    JSONObject macs = json.optJSONObject("macs");
    return macs == null
        ? new double[] {Double.NaN, Double.NaN}
        : new double[] {macs.optDouble("builtin", Double.NaN), macs.optDouble("ops", 0)};
  }

  private static Map<String, Integer> readOps(JSONObject ops) throws JSONException {
    Map<String, Integer> versions = new TreeMap<>();
    if (ops != null) {
      for (Iterator<String> names = ops.keys(); names.hasNext(); ) {
        String name = names.next();
        versions.put(name, ops.getInt(name));
      }
    }
    return Collections.unmodifiableMap(versions);
  }

  private static List<String> readLabels(JSONArray array) throws JSONException {
    List<String> labels = new ArrayList<>();
    for (int i = 0; array != null && i < array.length(); i++) {
      labels.add(array.getString(i));
    }
    return Collections.unmodifiableList(labels);
  }

  /** Costs must rise from exit to exit, or be missing altogether. */
  private static double[] readCosts(JSONArray exits, String unit) throws JSONException {
    if (exits == null || exits.length() == 0 || !exits.getJSONObject(0).has(unit)) {
      return new double[0];
    }
    double[] costs = new double[exits.length()];
    for (int i = 0; i < costs.length; i++) {
      costs[i] = exits.getJSONObject(i).getDouble(unit);
      if (!(costs[i] >= (i == 0 ? 0 : costs[i - 1])) || Double.isInfinite(costs[i])) {
        throw new JSONException("`" + unit + "` of exit " + i + " is " + costs[i] + ", below the exit before");
      }
    }
    return costs;
  }

  private static double[][] readStageMacs(JSONArray stages) throws JSONException {
    double[][] macs = new double[stages == null ? 0 : stages.length()][];
    for (int k = 0; k < macs.length; k++) {
      JSONObject stage = stages.getJSONObject(k);
      JSONObject of = stage.getJSONObject("macs");
      macs[k] = new double[] {of.getDouble("builtin"), of.getDouble("ops"), stage.optDouble("policy_macs", 0)};
    }
    return macs;
  }

  private static float[] readTradeOff(JSONObject range) throws JSONException {
    if (range == null) {
      return null;
    }
    float[] values = {
      (float) range.getDouble("min"), (float) range.getDouble("max"), (float) range.getDouble("default")
    };
    if (!(values[0] <= values[2] && values[2] <= values[1])) {
      throw new JSONException("`trade_off` is " + range + ", whose default lies outside its range");
    }
    return values;
  }

  private static Normalization readNormalization(JSONObject entry) throws JSONException {
    if (entry == null) {
      return null;
    }
    float[] mean = readNumbers(entry, "mean", 0);
    float[] std = readNumbers(entry, "std", 1);
    for (float value : std) {
      if (value == 0) {
        throw new JSONException("a `std` of 0");
      }
    }
    if (mean.length != std.length && mean.length != 1 && std.length != 1) {
      throw new JSONException("`mean` and `std` of different lengths");
    }
    return new Normalization(mean, std);
  }

  private static float[] readNumbers(JSONObject entry, String key, float missing) throws JSONException {
    JSONArray array = entry.optJSONArray(key);
    if (array == null) {
      return new float[] {entry.has(key) ? (float) entry.getDouble(key) : missing};
    }
    if (array.length() == 0) {
      throw new JSONException("an empty `" + key + "`");
    }
    float[] values = new float[array.length()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) array.getDouble(i);
    }
    return values;
  }
}
