package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A runtime whose signatures are functions of floats, and that remembers what was run with what. */
final class FakeRuntime implements SignatureRuntime {
  interface Function {
    Map<String, float[]> run(Map<String, float[]> inputs);
  }

  final List<String> ran = new ArrayList<>();
  final List<Map<String, float[]>> inputsOfRuns = new ArrayList<>();
  final Map<String, Map<String, Spec>> inputs = new LinkedHashMap<>();
  final Map<String, Map<String, Spec>> outputs = new LinkedHashMap<>();
  final Map<String, Function> functions = new HashMap<>();
  long kernelMacs = -1;
  int closed;

  /** Tensors as "name:size", or "name:size:TYPE" where they are not float32. */
  FakeRuntime with(String signature, String[] inputs, String[] outputs, Function function) {
    this.inputs.put(signature, specs(inputs));
    this.outputs.put(signature, specs(outputs));
    functions.put(signature, function);
    return this;
  }

  private static Map<String, Spec> specs(String[] texts) {
    Map<String, Spec> specs = new LinkedHashMap<>();
    for (String text : texts) {
      String[] parts = text.split(":");
      specs.put(parts[0], new Spec(parts.length > 2 ? parts[2] : "FLOAT32", new int[] {1, Integer.parseInt(parts[1])}));
    }
    return specs;
  }

  @Override
  public String[] signatures() {
    return inputs.keySet().toArray(new String[0]);
  }

  @Override
  public Map<String, Spec> inputs(String signature) {
    return inputs.get(signature);
  }

  @Override
  public Map<String, Spec> outputs(String signature) {
    return outputs.get(signature);
  }

  @Override
  public Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> given) {
    if (!given.keySet().equals(inputs.get(signature).keySet())) {
      throw new IllegalArgumentException("inputs of " + signature + ": " + given.keySet());
    }
    Map<String, float[]> values = new HashMap<>();
    for (Map.Entry<String, ByteBuffer> entry : given.entrySet()) {
      ByteBuffer buffer = entry.getValue();
      if (!buffer.isDirect() || buffer.order() != ByteOrder.nativeOrder()) {
        throw new IllegalArgumentException("a buffer that the runtime does not take: " + entry.getKey());
      }
      boolean integer = inputs.get(signature).get(entry.getKey()).type.equals("INT32");
      values.put(entry.getKey(), integer ? new float[] {buffer.getInt(0)} : Engine.floats(buffer));
    }
    ran.add(signature);
    inputsOfRuns.add(values);
    Map<String, ByteBuffer> results = new HashMap<>();
    for (Map.Entry<String, float[]> entry : functions.get(signature).run(values).entrySet()) {
      boolean integer = outputs.get(signature).get(entry.getKey()).type.equals("INT32");
      ByteBuffer buffer = ByteBuffer.allocateDirect(4 * entry.getValue().length).order(ByteOrder.nativeOrder());
      for (float value : entry.getValue()) {
        if (integer) {
          buffer.putInt((int) value);
        } else {
          buffer.putFloat(value);
        }
      }
      buffer.flip();
      results.put(entry.getKey(), buffer.asReadOnlyBuffer().order(ByteOrder.nativeOrder()));
    }
    return results;
  }

  @Override
  public long takeKernelMacs() {
    long taken = kernelMacs;
    kernelMacs = kernelMacs < 0 ? -1 : 0;
    return taken;
  }

  @Override
  public void close() {
    closed++;
  }

  static Map<String, float[]> map(Object... pairs) {
    Map<String, float[]> map = new HashMap<>();
    for (int i = 0; i < pairs.length; i += 2) {
      map.put((String) pairs[i], (float[]) pairs[i + 1]);
    }
    return map;
  }

  static float[] of(float... values) {
    return values;
  }
}
