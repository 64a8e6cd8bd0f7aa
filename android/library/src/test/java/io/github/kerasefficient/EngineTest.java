package io.github.kerasefficient;

import static io.github.kerasefficient.FakeRuntime.map;
import static io.github.kerasefficient.FakeRuntime.of;
import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import org.junit.Test;

/** The loops over stages and over one signature, with a runtime whose every step is known. */
public class EngineTest {
  private static final String STAGED = "{\"staged\": true, \"labels\": [\"a\", \"b\"], \"exits\": [{\"macs\": 100}, "
      + "{\"macs\": 250}, {\"macs\": 400}], \"stages\": [{\"macs\": {\"builtin\": 70, \"ops\": 30}, \"policy_macs\": 5}, "
      + "{\"macs\": {\"builtin\": 150, \"ops\": 0}, \"policy_macs\": 6}, {\"macs\": {\"builtin\": 100, \"ops\": 50}}]";
  private static final String TRADE_OFF = ", \"trade_off\": {\"min\": 0, \"max\": 1, \"default\": 0.5}";

  private static String[] names(String... names) {
    return names;
  }

  private static ByteBuffer bytes(float... values) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(4 * values.length).order(ByteOrder.nativeOrder());
    buffer.asFloatBuffer().put(values);
    return buffer;
  }

  /**
   * Three stages that add one to two features; logits are the features; a summary counts the stages. An input leaves at
   * exit k where its first logit + k + trade-off is above 3.
   */
  private static FakeRuntime stages(boolean takesTradeOff) {
    FakeRuntime fake = new FakeRuntime();
    for (int k = 0; k < 3; k++) {
      String[] inputs = k == 0 ? names("image:2") : names("features:2", "summary:1");
      String[] outputs = k == 2 ? names("output:2") : names("output:2", "features:2", "summary:1");
      float last = k;
      String input = k == 0 ? "image" : "features";
      fake.with("stage_" + k, inputs, outputs, given -> {
        float[] x = given.get(input);
        float[] next = of(x[0] + 1, x[1] + 1);
        return last == 2
            ? map("output", next)
            : map("output", next, "features", next, "summary", of(last == 0 ? 1 : given.get("summary")[0] + 1));
      });
      if (k < 2) {
        String[] policy = takesTradeOff ? names("output:2", "summary:1", "trade_off:1") : names("output:2", "summary:1");
        fake.with("policy_" + k, policy, names("score:1"), given -> map("score", of(given.get("output")[0]
            + given.get("summary")[0] - 1 + (takesTradeOff ? given.get("trade_off")[0] : 0) - 3)));
      }
    }
    return fake;
  }

  private static Prediction predict(Engine engine, Budget budget, float... input) {
    return engine.predict(Collections.singletonMap(engine.onlyInput(), bytes(input)), budget);
  }

  @Test
  public void aRequestLeavesWhereItsScoreIsPositive() {
    // logits after stage k: x + k + 1; the score of exit k: x + 1 + 2 k - 3 = x + 2 k - 2
    float[] inputs = {2.5f, 2, 0.5f, 0, -5};
    int[] exits = {0, 1, 1, 2, 2};
    double[] macs = {70 + 30 + 5, 70 + 30 + 5 + 150 + 6, 70 + 30 + 5 + 150 + 6 + 100 + 50};
    for (int i = 0; i < inputs.length; i++) {
      FakeRuntime fake = stages(false);
      Prediction prediction = predict(Engine.open(ModelInfo.parse(STAGED + "}"), fake), Budget.none(), inputs[i], 7);
      assertEquals(exits[i], prediction.exitIndex());
      float added = exits[i] + 1;
      assertArrayEquals(of(inputs[i] + added, 7 + added), prediction.scores(), 0);
      assertEquals(macs[exits[i]], prediction.executedMacs(), 0);
      assertEquals("b", prediction.label());
      assertEquals(1, prediction.labelIndex());
      assertTrue(prediction.latencyNanos() >= 0);
      assertEquals(Arrays.asList("stage_0", "policy_0", "stage_1", "policy_1", "stage_2").subList(0,
          Math.min(2 * exits[i] + 2, 5)), fake.ran);
    }
  }

  @Test
  public void nothingBehindTheLastExitAllowedIsRunNorAsked() {
    for (int cap = 0; cap < 3; cap++) {
      FakeRuntime fake = stages(false);
      Engine engine = Engine.open(ModelInfo.parse(STAGED + "}"), fake);
      assertEquals(cap, predict(engine, Budget.none().withMaxExit(cap), -5, 0).exitIndex());
      assertEquals("stage_" + cap, fake.ran.get(fake.ran.size() - 1));
      assertEquals(2 * cap + 1, fake.ran.size());
    }
  }

  @Test
  public void deadlinesCapTheStages() {
    Engine engine = Engine.open(ModelInfo.parse(STAGED + "}"), stages(false));
    Prediction prediction = predict(engine, Budget.none().withDeadlineMacs(399), -5, 0);
    assertEquals(1, prediction.exitIndex());
    assertEquals(70 + 30 + 5 + 150, prediction.executedMacs(), 0); // the second policy was not asked
  }

  @Test
  public void stagesCountWhatRan() {
    FakeRuntime fake = stages(false);
    fake.with("stage_0", names("image:2"), names("output:2", "features:2", "summary:1", "macs:2"), given -> {
      fake.kernelMacs += 7;
      return map("output", of(0, 0), "features", of(0, 0), "summary", of(1), "macs", of(20, 30));
    });
    fake.kernelMacs = 0;
    String branches = STAGED.replace("\"policy_macs\": 5", "\"policy_macs\": 5, \"branches\": true") + "}";
    Engine engine = Engine.open(ModelInfo.parse(branches), fake);
    assertEquals(20 + 7, predict(engine, Budget.none().withMaxExit(0), 1, 1).executedMacs(), 0);
    Engine unknown = Engine.open(ModelInfo.parse(STAGED.substring(0, STAGED.indexOf(", \"stages")) + "}"), stages(false));
    assertTrue(Double.isNaN(predict(unknown, Budget.none(), 9, 1).executedMacs()));
  }

  @Test
  public void theTradeOffReachesThePolicy() {
    FakeRuntime fake = stages(true);
    Engine engine = Engine.open(ModelInfo.parse(STAGED + TRADE_OFF + "}"), fake);
    assertEquals(1, predict(engine, Budget.none(), 1, 0).exitIndex()); // 1 - 2 + 0.5 stays, 1 - 2 + 2 + 0.5 leaves
    assertEquals(0.5f, fake.inputsOfRuns.get(1).get("trade_off")[0], 0);
    assertEquals(0, predict(engine, Budget.none().withTradeOff(1.25f), 1, 0).exitIndex());
  }

  @Test
  public void aScoreThatIsNoNumberStays() {
    FakeRuntime fake = stages(false);
    fake.functions.put("policy_0", given -> map("score", of(Float.NaN)));
    assertEquals(1, predict(Engine.open(ModelInfo.parse(STAGED + "}"), fake), Budget.none(), 2.5f, 0).exitIndex());
  }

  @Test
  public void measuringRunsEveryStageAndDecidesDeadlines() {
    FakeRuntime fake = stages(false);
    Engine engine = Engine.open(ModelInfo.parse(STAGED + "}"), fake);
    double[] costs = engine.measure(bytes(9, 9), 3);
    assertEquals(3, costs.length);
    assertTrue(0 < costs[0] && costs[0] <= costs[1] && costs[1] <= costs[2]);
    assertEquals((3 + 3) * 5, fake.ran.size()); // three to warm up
    assertEquals(0, predict(engine, Budget.none().withDeadlineMicroseconds(costs[0]), -5, 0).exitIndex());
    assertEquals(2, predict(engine, Budget.none().withDeadlineMicroseconds(1e9), -5, 0).exitIndex());
    assertRefused(() -> engine.measure(bytes(9, 9), 0), "`repetitions`. Expected at least 1. Received: 0");
  }

  @Test
  public void aStagedFileMustHaveWhatItsMetadataSays() {
    String[][] damages = {{"stage_2"}, {"policy_1"}, {"stage_0"}};
    for (String[] damage : damages) {
      FakeRuntime fake = stages(false);
      fake.inputs.remove(damage[0]);
      assertRefused(() -> Engine.open(ModelInfo.parse(STAGED + "}"), fake), "`" + damage[0] + "` for its 3 exits");
      assertEquals(1, fake.closed);
    }
    FakeRuntime unknown = stages(true); // a trade-off that the metadata does not know of
    assertRefused(() -> Engine.open(ModelInfo.parse(STAGED + "}"), unknown), "`policy_0` to take some of");
    FakeRuntime typed = stages(false);
    typed.outputs.get("stage_1").put("output", new SignatureRuntime.Spec("INT8", new int[] {1, 2}));
    assertRefused(() -> Engine.open(ModelInfo.parse(STAGED + "}"), typed), "Expected FLOAT32 for tensor `output`", "INT8");
  }

  private static final String SINGLE = "{\"branches\": true, \"budget_inputs\": true, \"macs\": {\"builtin\": 70, \"ops\": 30}, \"exits\": "
      + "[{\"macs\": 40}, {\"macs\": 100}]";

  private static final String ALONE = SINGLE.replace("\"budget_inputs\": true, ", "") + "}";

  private static FakeRuntime single(boolean budget) {
    String[] inputs = budget ? names("x:2", "max_exit:1:INT32", "trade_off:1") : names("x:2");
    String[] outputs = {"exit_index:1:INT32", "macs:2", "output:2", "other:1"};
    return new FakeRuntime().with("serving_default", inputs, outputs,
        given -> map("exit_index", of(budget ? given.get("max_exit")[0] : 1), "macs", of(50, 30), "output",
            given.get("x"), "other", of(budget ? given.get("trade_off")[0] : 0)));
  }

  @Test
  public void aFileThatDecidesGetsTheBudget() {
    FakeRuntime fake = single(true);
    Engine engine = Engine.open(ModelInfo.parse(SINGLE + TRADE_OFF + "}"), fake);
    assertEquals(Collections.singleton("x"), engine.inputShapes().keySet());
    Prediction prediction = predict(engine, Budget.none(), 3, 2);
    assertEquals(1, prediction.exitIndex());
    assertArrayEquals(of(3, 2), prediction.scores(), 0);
    assertArrayEquals(of(0.5f), prediction.outputs().get("other"), 0);
    assertEquals(2, prediction.outputs().size());
    assertNull(prediction.label());
    assertEquals(50 + 30, prediction.executedMacs(), 0); // no kernel counts: the ops in full
    fake.kernelMacs = 7;
    prediction = predict(engine, Budget.none().withMaxExit(0).withTradeOff(0.75f), 3, 2);
    assertEquals(0, prediction.exitIndex());
    assertArrayEquals(of(0.75f), prediction.outputs().get("other"), 0);
  }

  @Test
  public void whatKernelsCountedBeforeIsForgotten() {
    FakeRuntime fake = single(false);
    Engine engine = Engine.open(ModelInfo.parse(ALONE), fake);
    FakeRuntime.Function run = fake.functions.get("serving_default");
    fake.functions.put("serving_default", given -> {
      fake.kernelMacs += 11;
      return run.run(given);
    });
    fake.kernelMacs = 1000;
    assertEquals(50 + 11, predict(engine, Budget.none(), 3, 2).executedMacs(), 0);
    assertEquals(50 + 11, predict(engine, Budget.none(), 3, 2).executedMacs(), 0);
  }

  @Test
  public void aFileWithoutBudgetInputsRefusesOne() {
    assertRefused(() -> Engine.open(ModelInfo.parse(SINGLE + "}"), single(false)), "Expected the input `max_exit`");
    Engine engine = Engine.open(ModelInfo.parse(ALONE), single(false));
    assertEquals(1, predict(engine, Budget.none(), 3, 2).exitIndex());
    assertRefused(() -> predict(engine, Budget.none().withMaxExit(0), 3, 2), "export it with budget_inputs=True");
    assertRefused(() -> engine.measure(bytes(1, 2), 1), "staged=True");
  }

  @Test
  public void somebodyElsesFileRuns() {
    FakeRuntime fake = new FakeRuntime().with("main", names("x:2"), names("y:2", "macs:1"),
        given -> map("y", given.get("x"), "macs", of(4)));
    Engine engine = Engine.open(ModelInfo.empty(), fake);
    Prediction prediction = predict(engine, Budget.none(), 3, 4);
    assertEquals(-1, prediction.exitIndex());
    assertTrue(Double.isNaN(prediction.executedMacs()));
    assertArrayEquals(of(3, 4), prediction.scores(), 0);
    assertEquals(1, prediction.labelIndex());
    assertEquals(2, prediction.outputs().size()); // its own `macs` is an output like any other
  }

  @Test
  public void inputsAreChecked() {
    Engine engine = Engine.open(ModelInfo.empty(), new FakeRuntime().with("main", names("x:2", "z:1"), names("y:2"),
        given -> map("y", of(given.get("x")[0], given.get("z")[0]))));
    assertRefused(() -> engine.onlyInput(), "values by name for [x, z]");
    Map<String, ByteBuffer> inputs = new HashMap<>();
    inputs.put("x", bytes(1, 2));
    assertRefused(() -> engine.predict(inputs, Budget.none()), "Expected [x, z]. Received: [x]");
    inputs.put("z", bytes(1, 2));
    assertRefused(() -> engine.predict(inputs, Budget.none()), "`z`. Expected 1 float32 values", "Received: 8 bytes");
    inputs.put("z", bytes(5));
    assertArrayEquals(of(1, 5), engine.predict(inputs, Budget.none()).scores(), 0);
  }

  @Test
  public void buffersOfAnyKindAreTakenBetweenPositionAndLimit() {
    Engine engine = Engine.open(ModelInfo.empty(),
        new FakeRuntime().with("main", names("x:2"), names("y:2"), given -> map("y", given.get("x"))));
    ByteBuffer big = ByteBuffer.allocate(20).order(ByteOrder.BIG_ENDIAN);
    big.putInt(0).putFloat(1.5f).putFloat(-2).putInt(0).putInt(0);
    big.position(4).limit(12);
    ByteBuffer direct = ByteBuffer.allocateDirect(12).order(ByteOrder.nativeOrder());
    direct.putInt(0).putFloat(1.5f).putFloat(-2).position(4);
    for (ByteBuffer input : new ByteBuffer[] {big, big.asReadOnlyBuffer().order(ByteOrder.BIG_ENDIAN), direct}) {
      Prediction prediction = engine.predict(Collections.singletonMap("x", input), Budget.none());
      assertArrayEquals(of(1.5f, -2), prediction.scores(), 0);
      assertEquals(4, input.position());
    }
  }

  @Test
  public void whatTheRuntimeSaysIsPassedOn() {
    RuntimeException reason = new IllegalArgumentException("node 3 failed");
    Engine engine = Engine.open(ModelInfo.empty(), new FakeRuntime().with("main", names("x:1"), names("y:1"), given -> {
      throw reason;
    }));
    try {
      predict(engine, Budget.none(), 1);
      fail();
    } catch (IllegalStateException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("signature `main`. It says: node 3 failed"));
      assertSame(reason, error.getCause());
    }
  }

  @Test
  public void softmaxByHand() {
    Prediction prediction = new Prediction(map("y", of(1000, 1000 + (float) Math.log(3))), "y", null, 0, 1, 1);
    assertArrayEquals(of(0.25f, 0.75f), prediction.softmax(), 1e-5f);
  }

  private static void assertRefused(Runnable call, String... words) {
    try {
      call.run();
    } catch (IllegalArgumentException error) {
      for (String word : words) {
        assertTrue(error.getMessage(), error.getMessage().contains(word));
      }
      return;
    }
    fail("accepted");
  }
}
