package io.github.kerasefficient.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.github.kerasefficient.Budget;
import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import javax.imageio.ImageIO;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Assume;
import org.junit.BeforeClass;
import org.junit.Test;

/** The app's own model in TensorFlow Lite's runtime; skipped but in tests/android, which makes that run without a phone. */
public final class ModelRecognizerTest {
  private static File assets;

  @BeforeClass
  public static void loadRuntime() {
    String libraries = System.getProperty("tests.system");
    String folder = System.getProperty("tests.assets");
    Assume.assumeNotNull(libraries, folder);
    assets = new File(folder);
    for (String library : libraries.split(":")) {
      System.load(library);
    }
  }

  private static ModelRecognizer open() throws IOException {
    return ModelRecognizer.open(new FileInputStream(new File(assets, "model.tflite")));
  }

  /** A picture of one channel; its raw numbers, since Java would convert them from linear grey. */
  private static Picture sample(String name) throws IOException {
    BufferedImage image = ImageIO.read(new File(assets, name));
    int[] grey = image.getRaster().getSamples(0, 0, image.getWidth(), image.getHeight(), 0, (int[]) null);
    return PictureTest.grey(image.getWidth(), image.getHeight(), grey);
  }

  private static float[] values(ModelRecognizer recognizer, String name) throws IOException {
    return recognizer.input().values(recognizer.input().view(sample(name)));
  }

  @Test
  public void samplesAreRecognizedAsInPython() throws Exception {
    JSONArray cases = new JSONArray(new String(Files.readAllBytes(new File(assets, "cases.json").toPath()), "UTF-8"));
    assertTrue(cases.length() > 0);
    try (ModelRecognizer recognizer = open()) {
      for (int i = 0; i < cases.length(); i++) {
        JSONObject expected = cases.getJSONObject(i);
        Budget budget = Budget.none().withTradeOff((float) expected.getDouble("trade_off"));
        Recognition found = recognizer.recognize(values(recognizer, expected.getString("sample")), budget);
        assertEquals(expected.toString(), expected.getString("label"), found.label);
        assertEquals(expected.toString(), expected.getInt("exit"), found.exit);
        assertEquals(expected.getDouble("confidence"), found.confidence, 1e-4);
        assertEquals(expected.getDouble("share"), found.share, 1e-6);
        assertEquals(3, found.exits);
        assertTrue(found.milliseconds > 0);
      }
    }
  }

  @Test
  public void theShortestDeadlineIsTheFirstExit() throws Exception {
    try (ModelRecognizer recognizer = open()) {
      List<BudgetScale> scales = recognizer.scales();
      assertEquals(2, scales.size());
      assertEquals(BudgetScale.Kind.TRADE_OFF, scales.get(0).kind);
      BudgetScale deadline = scales.get(1);
      assertEquals(BudgetScale.Kind.MICROSECONDS, deadline.kind);
      assertTrue(deadline.value(0) < deadline.value(BudgetScale.STEPS));
      for (int digit = 0; digit < 10; digit++) {
        float[] values = values(recognizer, "samples/" + digit + ".png");
        assertEquals(1, recognizer.recognize(values, deadline.budget(0)).exit);
      }
    }
  }

  @Test
  public void whatIsNoModelIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> ModelRecognizer.open(new ByteArrayInputStream(new byte[100])));
    assertThrows(IllegalArgumentException.class, () -> ModelRecognizer.open(new ByteArrayInputStream(new byte[0])));
  }
}
