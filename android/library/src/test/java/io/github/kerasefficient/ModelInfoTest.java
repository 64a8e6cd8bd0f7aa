package io.github.kerasefficient;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.util.Arrays;
import java.util.Collections;
import org.junit.Test;

public class ModelInfoTest {
  @Test
  public void everythingIsRead() {
    ModelInfo info = ModelInfo.parse("{\"format\": 1, \"version\": \"0.9.0\", \"form\": \"custom\", \"branches\": true,"
        + "\"ops\": {\"ke.gated_conv_2d\": 1}, \"labels\": [\"cat\", \"h\\u00f6rnchen\"], \"staged\": true,"
        + "\"macs\": {\"builtin\": 30.0, \"ops\": 12.5, \"dense\": 42.5},"
        + "\"exits\": [{\"macs\": 10.5}, {\"macs\": 42.5}], \"trade_off\": {\"min\": 0.1, \"max\": 0.5, \"default\": 0.2},"
        + "\"normalization\": {\"mean\": 127.5, \"std\": 64}, \"unknown\": [1, {}]}");
    assertEquals("0.9.0", info.version());
    assertEquals("custom", info.form());
    assertEquals(Collections.singletonMap("ke.gated_conv_2d", 1), info.ops());
    assertEquals(Arrays.asList("cat", "h\u00f6rnchen"), info.labels());
    assertTrue(info.staged());
    assertTrue(info.hasExits());
    assertTrue(info.hasBranches());
    assertEquals(2, info.numExits());
    assertArrayEquals(new double[] {10.5, 42.5}, info.exitMacs(), 0);
    assertEquals(0, info.exitMicroseconds().length);
    assertTrue(info.takesTradeOff());
    assertEquals(0.1f, info.minTradeOff(), 0);
    assertEquals(0.5f, info.maxTradeOff(), 0);
    assertEquals(0.2f, info.defaultTradeOff(), 0);
    assertArrayEquals(new double[] {30, 12.5}, info.denseMacs(), 0);
    assertArrayEquals(new float[] {127.5f}, info.normalization().mean(), 0);
  }

  @Test
  public void whatIsMissingHasADefault() {
    ModelInfo info = ModelInfo.empty();
    assertEquals(1, info.numExits());
    assertFalse(info.hasExits());
    assertFalse(info.staged());
    assertFalse(info.takesTradeOff());
    assertTrue(info.labels().isEmpty());
    assertTrue(info.ops().isEmpty());
    assertEquals("builtin", info.form());
    assertNull(info.normalization());
    assertTrue(Double.isNaN(info.denseMacs()[0]));
    assertTrue(Float.isNaN(info.defaultTradeOff()));
  }

  @Test
  public void whatMakesNoSenseIsRefusedInOneSentence() {
    String[] texts = {
      "", "[]", "{", "nothing", "{\"format\": 2, \"version\": \"7.0\"}", "{\"staged\": true}",
      "{\"exits\": [{\"macs\": 5}, {\"macs\": 4}]}", "{\"exits\": [{\"macs\": 5}, {}]}", "{\"exits\": [3]}",
      "{\"trade_off\": {\"min\": 0, \"max\": 1}}", "{\"trade_off\": {\"min\": 0, \"max\": 1, \"default\": 2}}",
      "{\"normalization\": {\"mean\": 0, \"std\": 0}}", "{\"normalization\": {\"mean\": [1, 2], \"std\": [1, 2, 3]}}",
      "{\"normalization\": {\"mean\": []}}", "{\"ops\": {\"ke.x\": \"new\"}}",
    };
    for (String text : texts) {
      try {
        ModelInfo.parse(text);
        fail("accepted: " + text);
      } catch (IllegalArgumentException error) {
        assertTrue(error.getMessage(), error.getMessage().startsWith("Invalid metadata `keras_efficient`. Expected "));
      }
    }
  }

  @Test
  public void aNewerFormatNamesBoth() {
    try {
      ModelInfo.parse("{\"format\": 2, \"version\": \"7.0\"}");
      fail();
    } catch (IllegalArgumentException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("format 1 or older"));
      assertTrue(error.getMessage(), error.getMessage().contains("format 2, of keras-efficient 7.0"));
    }
  }

  @Test
  public void opsNewerThanTheLibraryAreRefusedWithBothVersions() {
    ModelInfo info = ModelInfo.parse("{\"version\": \"7.0\", \"ops\": {\"ke.gated_conv_2d\": 3}}");
    Engine.checkVersions(info, Collections.singletonMap("ke.gated_conv_2d", 3));
    Engine.checkVersions(info, Collections.singletonMap("ke.gated_conv_2d", 4));
    assertMismatch(info, Collections.singletonMap("ke.gated_conv_2d", 2), "ke.gated_conv_2d of version 2 or older",
        "Received: version 3, written by keras-efficient 7.0");
    assertMismatch(info, Collections.singletonMap("ke.other", 2), "no ke.gated_conv_2d", "Received: version 3");
  }

  private static void assertMismatch(ModelInfo info, java.util.Map<String, Integer> library, String... words) {
    try {
      Engine.checkVersions(info, library);
      fail();
    } catch (IllegalArgumentException error) {
      for (String word : words) {
        assertTrue(error.getMessage(), error.getMessage().contains(word));
      }
    }
  }

  @Test
  public void normalizationByHand() {
    Normalization all = ModelInfo.parse("{\"normalization\": {\"mean\": 10, \"std\": 4}}").normalization();
    assertArrayEquals(new float[] {-2.5f, 0, 2.5f}, all.apply(new float[] {0, 10, 20}), 0);
    Normalization each =
        ModelInfo.parse("{\"normalization\": {\"mean\": [1, 2, 3], \"std\": [1, 2, 4]}}").normalization();
    assertArrayEquals(new float[] {1, 1, 1, 3, 0, -0.5f}, each.apply(new float[] {2, 4, 7, 4, 2, 1}), 0);
    try {
      each.apply(new float[4]);
      fail();
    } catch (IllegalArgumentException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("whole pixels of 3 channels. Received: 4"));
    }
  }

  @Test
  public void pixelsByHand() {
    Normalization identity = ModelInfo.parse("{\"normalization\": {\"std\": 1}}").normalization();
    int[] pixels = {0xff0a141e, 0x00ffffff};
    assertArrayEquals(new float[] {10, 20, 30, 255, 255, 255}, identity.applyArgb(pixels, 3), 0);
    // 0.299 * 10 + 0.587 * 20 + 0.114 * 30
    assertArrayEquals(new float[] {18.15f, 255}, identity.applyArgb(pixels, 1), 1e-4f);
    try {
      identity.applyArgb(pixels, 4);
      fail();
    } catch (IllegalArgumentException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("1 or 3. Received: 4"));
    }
  }
}
