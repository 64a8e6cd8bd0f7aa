package io.github.kerasefficient;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** The metadata of real files, of files without any, and of damaged ones. */
public class MetadataTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void aRealFileSaysWhatItIs() throws IOException {
    ModelInfo info = Metadata.of(ByteBuffer.wrap(Host.bytes(Host.model("gated_staged.tflite"))), null, null);
    assertEquals("custom", info.form());
    assertEquals(3, info.numExits());
    assertTrue(info.staged());
    assertEquals("class 9", info.labels().get(9));
    assertEquals(0.25f, info.normalization().std()[0], 0);
    assertTrue(info.ops().containsKey("ke.gated_conv_2d"));
    assertEquals(3, info.stageMacs().length);
  }

  @Test
  public void aTextGoesBeforeTheFile() throws IOException {
    ByteBuffer file = ByteBuffer.wrap(Host.bytes(Host.model("gated.tflite")));
    assertEquals("other", Metadata.of(file, "{\"version\": \"other\"}", null).version());
  }

  @Test
  public void whatIsNoModelIsRefused() {
    for (byte[] content : new byte[][] {{}, {1, 2, 3}, new byte[64], "PK\3\4TFL2....".getBytes(StandardCharsets.UTF_8)}) {
      try {
        Metadata.read(ByteBuffer.wrap(content));
        fail();
      } catch (IllegalArgumentException error) {
        assertTrue(error.getMessage(), error.getMessage().startsWith("Invalid model. Expected a .tflite file. Received: "));
      }
    }
  }

  /** The smallest file: a model table without any field. */
  private static byte[] bare() {
    return new byte[] {16, 0, 0, 0, 'T', 'F', 'L', '3', 0, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0};
  }

  @Test
  public void withoutMetadataTheFileBesideIsRead() throws IOException {
    File model = folder.newFile("model.tflite");
    ByteBuffer content = ByteBuffer.wrap(bare());
    assertEquals("", Metadata.of(content, null, model).version());
    write(new File(folder.getRoot(), "model.json"), "{\"version\": \"beside\", \"labels\": [\"h\u00f6rnchen\"]}");
    assertEquals("beside", Metadata.of(content, null, model).version());
    assertEquals("h\u00f6rnchen", Metadata.of(content, null, model).labels().get(0));
    assertEquals("", Metadata.of(content, null, null).version());
  }

  private static void write(File file, String text) throws IOException {
    try (FileOutputStream stream = new FileOutputStream(file)) {
      stream.write(text.getBytes(StandardCharsets.UTF_8));
    }
  }

  /** Whatever the damage: text or none, or one kind of exception. */
  private static void read(byte[] content) {
    try {
      Metadata.of(ByteBuffer.wrap(content), null, null);
    } catch (IllegalArgumentException error) {
      assertNotNull(error.getMessage());
    }
  }

  @Test
  public void cutAnywhereItDoesNoHarm() throws IOException {
    byte[] whole = Host.bytes(Host.model("gated.tflite"));
    for (int length = 0; length < whole.length; length += length < 4096 ? 1 : 97) {
      read(java.util.Arrays.copyOf(whole, length));
    }
  }

  @Test
  public void damagedAnywhereItDoesNoHarm() throws IOException {
    byte[] whole = Host.bytes(Host.model("gated.tflite"));
    Random random = new Random(1);
    for (int i = 0; i < 20000; i++) {
      byte[] damaged = whole.clone();
      int place = i % 2 == 0 ? random.nextInt(whole.length) : random.nextInt(256);
      for (int width = random.nextInt(4) + 1; width > 0 && place < whole.length; width--) {
        damaged[place++] = (byte) (random.nextInt(3) == 0 ? -1 : random.nextInt(256));
      }
      read(damaged);
    }
  }
}
