package io.github.kerasefficient;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Before;
import org.junit.Test;
import org.tensorflow.lite.Interpreter;

/** Real files in the real runtime with the real library, against what the Python runners recorded. */
public class RecordedModelsTest {
  private static final float TOLERANCE = 1e-4f;

  /** One recorded request. */
  private static final class Case {
    final float[] input;
    final Budget budget;
    final float[] output;
    final int exit;
    final double macs;

    Case(JSONObject json) {
      input = floats(json.getJSONArray("input"));
      output = floats(json.getJSONArray("output"));
      exit = json.getInt("exit");
      macs = json.getDouble("macs");
      JSONObject bounds = json.getJSONObject("budget");
      Budget made = Budget.none();
      if (bounds.has("max_exit")) {
        made = made.withMaxExit(bounds.getInt("max_exit"));
      }
      if (bounds.has("deadline_macs")) {
        made = made.withDeadlineMacs(bounds.getDouble("deadline_macs"));
      }
      if (bounds.has("trade_off")) {
        made = made.withTradeOff((float) bounds.getDouble("trade_off"));
      }
      budget = made;
    }

    void check(DynamicModel model) {
      Prediction prediction = model.predict(input, budget);
      assertEquals(exit, prediction.exitIndex());
      assertArrayEquals(output, prediction.scores(), TOLERANCE);
      assertEquals(macs, prediction.executedMacs(), 1e-6 * macs);
      assertEquals("class " + prediction.labelIndex(), prediction.label());
    }
  }

  private static float[] floats(JSONArray array) {
    float[] values = new float[array.length()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) array.getDouble(i);
    }
    return values;
  }

  private Map<String, List<Case>> cases;

  @Before
  public void read() throws IOException {
    Host.needsRuntime();
    JSONObject files = new JSONObject(Host.text(Host.model("cases.json"))).getJSONObject("files");
    cases = new TreeMap<>();
    for (Iterator<String> names = files.keys(); names.hasNext(); ) {
      String name = names.next();
      List<Case> list = new ArrayList<>();
      for (Object json : files.getJSONArray(name)) {
        list.add(new Case((JSONObject) json));
      }
      cases.put(name, list);
    }
  }

  @Test
  public void everyFileGivesWhatPythonGave() throws IOException {
    for (Map.Entry<String, List<Case>> file : cases.entrySet()) {
      for (int threads = 1; threads <= 2; threads++) {
        DynamicModel.Options options = new DynamicModel.Options().setThreads(threads);
        try (DynamicModel model = DynamicModel.open(Host.model(file.getKey()), options)) {
          assertArrayEquals(new int[] {1, 8, 8, 1}, model.inputShapes().get("image"));
          int[] taken = new int[model.info().numExits()];
          for (Case one : file.getValue()) {
            one.check(model);
            taken[one.exit]++;
          }
          for (int count : taken) {
            assertTrue(file.getKey() + " " + Arrays.toString(taken), count > 0);
          }
        }
      }
    }
  }

  @Test
  public void modelsInMemoryOfAnyKindRun() throws IOException {
    byte[] content = Host.bytes(Host.model("gated.tflite"));
    ByteBuffer direct = ByteBuffer.allocateDirect(content.length + 16);
    direct.position(16);
    direct.put(content).position(16);
    for (ByteBuffer file : new ByteBuffer[] {ByteBuffer.wrap(content), ByteBuffer.wrap(content).asReadOnlyBuffer(), direct}) {
      try (DynamicModel model = DynamicModel.open(file)) {
        cases.get("gated.tflite").get(0).check(model);
      }
    }
  }

  @Test
  public void measuredStagesDecideDeadlines() throws IOException {
    try (DynamicModel model = DynamicModel.open(Host.model("gated_staged.tflite"))) {
      Case one = cases.get("gated_staged.tflite").get(0);
      double[] costs = model.measure(one.input, 20);
      assertEquals(3, costs.length);
      assertTrue(Arrays.toString(costs), 0 < costs[0] && costs[0] < costs[1] && costs[1] < costs[2]);
      assertEquals(0, model.predict(one.input, Budget.none().withDeadlineMicroseconds(costs[0])).exitIndex());
    }
  }

  @Test
  public void aThousandTimesWithoutALeak() throws Exception {
    long single = growthOfOpening("gated.tflite");
    assertTrue("grew by " + single + " KB", single < 4 * 1024);
    // With several signatures and kernels some 25 KB of each opening stay (TFLite 2.14; see docs/android.md): no more.
    long staged = growthOfOpening("gated_staged.tflite");
    assertTrue("grew by " + staged + " KB", staged < 40 * 1024);
    long builtin = growthOfOpening("gated_builtin_staged.tflite");
    assertTrue("grew by " + builtin + " KB", builtin < 8 * 1024);
  }

  private long growthOfOpening(String name) throws Exception {
    List<Case> list = cases.get(name);
    File file = Host.model(name);
    int[] next = {0};
    return Host.growthOfThousand(() -> {
      try (DynamicModel model = DynamicModel.open(file)) {
        list.get(next[0]++ % list.size()).check(model);
      }
    });
  }

  @Test
  public void aThousandRequestsWithoutALeak() throws Exception {
    for (String name : new String[] {"trade_off.tflite", "trade_off_staged.tflite"}) {
      List<Case> list = cases.get(name);
      int[] next = {0};
      try (DynamicModel model = DynamicModel.open(Host.model(name))) {
        long growth = Host.growthOfThousand(() -> list.get(next[0]++ % list.size()).check(model));
        assertTrue(name + " grew by " + growth + " KB", growth < 4 * 1024);
      }
    }
  }

  @Test
  public void fourThreadsWithModelsOfTheirOwn() throws Exception {
    Host.inFourThreads(() -> {
      for (int i = 0; i < 5; i++) {
        for (Map.Entry<String, List<Case>> file : cases.entrySet()) {
          try (DynamicModel model = DynamicModel.open(Host.model(file.getKey()))) {
            for (Case one : file.getValue()) {
              one.check(model);
            }
          }
        }
      }
    });
  }

  @Test
  public void fourThreadsShareAModelAndCloseIt() throws Exception {
    List<Case> list = cases.get("gated_staged.tflite");
    for (int i = 0; i < 20; i++) {
      DynamicModel model = DynamicModel.open(Host.model("gated_staged.tflite"));
      Host.inFourThreads(() -> {
        for (Case one : list) {
          try {
            one.check(model);
          } catch (IllegalStateException error) {
            assertEquals("The model is closed.", error.getMessage());
          }
        }
        model.close();
      });
    }
  }

  @Test
  public void afterCloseThereIsOnlyAnException() throws IOException {
    DynamicModel model = DynamicModel.open(Host.model("gated.tflite"));
    model.close();
    model.close();
    Case one = cases.get("gated.tflite").get(0);
    assertThrows(IllegalStateException.class, () -> one.check(model), "The model is closed.");
    assertThrows(IllegalStateException.class, () -> model.measure(one.input, 1), "The model is closed.");
  }

  @Test
  public void inputsAndBudgetsAreChecked() throws IOException {
    try (DynamicModel model = DynamicModel.open(Host.model("gated.tflite"))) {
      assertThrows(IllegalArgumentException.class, () -> model.predict(new float[63]),
          "Invalid input `image`. Expected 64 float32 values, of shape [1, 8, 8, 1]. Received: 252 bytes");
      assertThrows(IllegalArgumentException.class, () -> model.predict(new float[64], Budget.none().withMaxExit(0)),
          "budget_inputs=True");
      assertThrows(IllegalArgumentException.class, () -> model.predict(new float[64], Budget.none().withTradeOff(1)),
          "policy takes none");
    }
  }

  @Test
  public void filesThatCannotRunAreRefused() throws IOException {
    assertRefused("newer_metadata.tflite", "does not match this model. Expected ke.", "Received: version 99, written by");
    assertRefused("composite.tflite", "needs LiteRT, or TensorFlow Lite 2.18.1 or newer", "builtin_code out of range: 206");
    assertThrows(IllegalArgumentException.class, () -> DynamicModel.open(ByteBuffer.allocate(100)), "Expected a .tflite file");
    byte[] cut = Arrays.copyOf(Host.bytes(Host.model("gated.tflite")), 9000);
    assertThrows(IllegalArgumentException.class, () -> DynamicModel.open(ByteBuffer.wrap(cut)), "Invalid model");
    try {
      DynamicModel.open(new File("/nowhere/model.tflite"));
      fail();
    } catch (IOException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("/nowhere/model.tflite"));
    }
    DynamicModel.Options stock = new DynamicModel.Options().setUseDelegate(false);
    ByteBuffer custom = ByteBuffer.wrap(Host.bytes(Host.model("gated.tflite")));
    assertThrows(IllegalArgumentException.class, () -> DynamicModel.open(custom, stock), "only the delegate can run");
  }

  private static void assertRefused(String name, String... words) {
    for (String word : words) {
      assertThrows(IllegalArgumentException.class, () -> {
        try {
          DynamicModel.open(Host.model(name)).close();
        } catch (IOException error) {
          throw new AssertionError(error);
        }
      }, word);
    }
  }

  @Test
  public void anOpNewerThanTheLibraryIsRefusedByTheDelegate() {
    File file = Host.model("newer_op.tflite");
    try (KerasEfficientDelegate delegate = new KerasEfficientDelegate()) {
      assertThrows(IllegalStateException.class, () -> {
        try (Interpreter interpreter = new Interpreter(file, new Interpreter.Options().addDelegate(delegate))) {
          interpreter.allocateTensors();
        }
      }, "Received: 99");
    }
  }

  @Test
  public void somebodysOwnInterpreterTakesTheDelegate() throws IOException {
    File file = Host.model("gated.tflite");
    Case one = null; // one that goes through the whole network, our ops included
    for (Case candidate : cases.get("gated.tflite")) {
      one = candidate.exit == 2 ? candidate : one;
    }
    try (KerasEfficientDelegate delegate = new KerasEfficientDelegate(new KerasEfficientDelegate.Options().setStats(true))) {
      for (int round = 0; round < 2; round++) { // two interpreters, one after the other
        try (Interpreter interpreter = new Interpreter(file, new Interpreter.Options().addDelegate(delegate))) {
          Map<String, Object> inputs = new TreeMap<>();
          inputs.put("image", FloatBuffer.wrap(one.input));
          FloatBuffer output = ByteBuffer.allocateDirect(40).order(ByteOrder.nativeOrder()).asFloatBuffer();
          Map<String, Object> outputs = new TreeMap<>();
          outputs.put("output", output);
          interpreter.runSignature(inputs, outputs, interpreter.getSignatureKeys()[0]);
          output.rewind();
          float[] scores = new float[10];
          output.get(scores);
          assertArrayEquals(one.output, scores, TOLERANCE);
        }
      }
      assertTrue(delegate.claimedOps() >= 2);
      assertTrue(delegate.kernelCalls() >= 2);
      assertTrue(delegate.executedMacs() > 0);
      delegate.resetStats();
      assertEquals(0, delegate.executedMacs());
      assertEquals(0, delegate.kernelCalls());
    }
  }

  @Test
  @SuppressWarnings("try") // closed inside
  public void aDelegateClosedTooEarlyDoesNoHarm() {
    KerasEfficientDelegate delegate = new KerasEfficientDelegate(new KerasEfficientDelegate.Options().setStats(true));
    Case one = cases.get("gated.tflite").get(0);
    try (Interpreter interpreter =
        new Interpreter(Host.model("gated.tflite"), new Interpreter.Options().addDelegate(delegate))) {
      delegate.close();
      Map<String, Object> inputs = new TreeMap<>();
      inputs.put("image", FloatBuffer.wrap(one.input));
      Map<String, Object> outputs = new TreeMap<>();
      outputs.put("output", null);
      interpreter.runSignature(inputs, outputs, interpreter.getSignatureKeys()[0]);
    }
    assertThrows(IllegalStateException.class,
        () -> new Interpreter(Host.model("gated_builtin.tflite"), new Interpreter.Options().addDelegate(delegate)),
        "The delegate is closed.");
  }

  private static void assertThrows(Class<? extends RuntimeException> kind, Runnable call, String words) {
    try {
      call.run();
    } catch (RuntimeException error) {
      assertEquals(error.toString(), kind, error.getClass());
      assertTrue(error.getMessage(), error.getMessage().contains(words));
      return;
    }
    fail("accepted; expected: " + words);
  }
}
