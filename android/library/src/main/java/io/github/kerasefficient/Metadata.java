package io.github.kerasefficient;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.Charset;

/** Finds a model's metadata: in the flatbuffer of the file, or in {@code model.json} beside it. */
final class Metadata {
  private static final Charset UTF_8 = Charset.forName("UTF-8");
  private static final String NAME = "keras_efficient";
  private static final int MAX_BYTES = 16 << 20;

  // Positions in TFLite's schema.
  private static final int MODEL_BUFFERS = 4;
  private static final int MODEL_METADATA = 6;
  private static final int METADATA_NAME = 0;
  private static final int METADATA_BUFFER = 1;
  private static final int BUFFER_DATA = 0;

  private final ByteBuffer file;

  private Metadata(ByteBuffer file) {
    this.file = file;
  }

  /**
   * What a model says of itself, from the first of: the text, the file's own buffer, `model.json` beside `path`.
   *
   * @param text null for none.
   * @param path null for a model in memory.
   */
  static ModelInfo of(ByteBuffer content, String text, File path) {
    String found = read(content);
    if (text != null) {
      found = text;
    }
    if (found == null && path != null) {
      found = beside(path);
    }
    return found == null ? ModelInfo.empty() : ModelInfo.parse(found);
  }

  /**
   * The JSON text in the file's metadata buffer, null where there is none.
   *
   * @throws IllegalArgumentException if the content is no TFLite file.
   */
  static String read(ByteBuffer content) {
    ByteBuffer file = content.slice().order(ByteOrder.LITTLE_ENDIAN);
    if (file.limit() < 8 || file.get(4) != 'T' || file.get(5) != 'F' || file.get(6) != 'L' || file.get(7) != '3') {
      throw new IllegalArgumentException(
          "Invalid model. Expected a .tflite file. Received: " + file.limit() + " bytes that are none");
    }
    try {
      return new Metadata(file).find();
    } catch (IndexOutOfBoundsException error) {
      throw new IllegalArgumentException("Invalid model. Expected a .tflite file. Received: one that is cut or damaged",
          error);
    }
  }

  private String find() {
    int model = follow(0);
    int entries = field(model, MODEL_METADATA);
    int buffers = field(model, MODEL_BUFFERS);
    if (entries == 0 || buffers == 0) {
      return null;
    }
    entries = follow(entries);
    buffers = follow(buffers);
    for (int i = 0; i < length(entries, 4); i++) {
      int entry = follow(entries + 4 + 4 * i);
      int name = field(entry, METADATA_NAME);
      if (name != 0 && NAME.equals(text(follow(name)))) {
        int index = field(entry, METADATA_BUFFER);
        int number = index == 0 ? 0 : file.getInt(index);
        if (number < 0 || number >= length(buffers, 4)) {
          throw new IndexOutOfBoundsException();
        }
        int data = field(follow(buffers + 4 + 4 * number), BUFFER_DATA);
        return data == 0 ? null : text(follow(data));
      }
    }
    return null;
  }

  /** Where an offset leads: forward, and not out of the file. */
  private int follow(int position) {
    long target = position + (file.getInt(position) & 0xffffffffL);
    if (target > file.limit() - 4) {
      throw new IndexOutOfBoundsException();
    }
    return (int) target;
  }

  /** Where a table holds a field, 0 where it does not. */
  private int field(int table, int index) {
    long vtable = table - (long) file.getInt(table);
    if (vtable < 0 || vtable > file.limit() - 4) {
      throw new IndexOutOfBoundsException();
    }
    int size = file.getShort((int) vtable) & 0xffff;
    int slot = 4 + 2 * index;
    int offset = slot + 2 <= size ? file.getShort((int) vtable + slot) & 0xffff : 0;
    return offset == 0 ? 0 : checked((long) table + offset);
  }

  private int checked(long position) {
    if (position > file.limit() - 4) {
      throw new IndexOutOfBoundsException();
    }
    return (int) position;
  }

  /** The length of a vector whose elements have that many bytes. */
  private int length(int vector, int elementBytes) {
    long count = file.getInt(vector) & 0xffffffffL;
    if (count * elementBytes > file.limit() - 4 - (long) vector) {
      throw new IndexOutOfBoundsException();
    }
    return (int) count;
  }

  private String text(int vector) {
    int length = length(vector, 1);
    if (length > MAX_BYTES) {
      throw new IndexOutOfBoundsException();
    }
    byte[] bytes = new byte[length];
    ByteBuffer view = file.duplicate();
    view.position(vector + 4);
    view.get(bytes);
    return new String(bytes, UTF_8);
  }

  private static String beside(File path) {
    File json = new File(path.getAbsoluteFile().getParentFile(), "model.json");
    if (!json.isFile() || json.length() > MAX_BYTES) {
      return null;
    }
    byte[] bytes = new byte[(int) json.length()];
    try (FileInputStream stream = new FileInputStream(json)) {
      int count = 0;
      for (int read; count < bytes.length && (read = stream.read(bytes, count, bytes.length - count)) > 0; ) {
        count += read;
      }
      return new String(bytes, 0, count, UTF_8);
    } catch (IOException error) {
      throw new IllegalArgumentException("Invalid file " + json + ". Expected the model's metadata: " + error.getMessage(),
          error);
    }
  }
}
