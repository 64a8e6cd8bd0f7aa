package io.github.kerasefficient;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import org.junit.Assume;

/** Where the tests find what was built for them; a test that needs what is not there is skipped. */
final class Host {
  private static boolean runtimeLoaded;

  private Host() {}

  /** A property that tests/android sets. Without it the test is skipped, or fails where nothing may be skipped. */
  static String need(String property) {
    String value = System.getProperty(property);
    if (value == null && Boolean.getBoolean("tests.strict")) {
      throw new AssertionError("needs -D" + property);
    }
    Assume.assumeNotNull(value);
    return value;
  }

  /** Skips the test unless the native library of this package is there. */
  static void needsLibrary() {
    need(NativeLibrary.PATH_PROPERTY);
    needsSystem();
  }

  /** Skips the test unless an interpreter runs here, see tests/android/android_runtime.py. */
  static void needsRuntime() {
    needsLibrary();
    need("tests.system");
  }

  /** Android's system libraries must be there, by their names, before a library for Android is loaded. */
  private static synchronized void needsSystem() {
    String libraries = System.getProperty("tests.system");
    if (libraries != null && !runtimeLoaded) {
      for (String library : libraries.split(":")) {
        System.load(library);
      }
      runtimeLoaded = true;
    }
  }

  /** One of the files that the Python side wrote. */
  static File model(String name) {
    return new File(need("tests.models"), name);
  }

  static byte[] bytes(File file) throws IOException {
    try (InputStream stream = new FileInputStream(file)) {
      ByteArrayOutputStream all = new ByteArrayOutputStream();
      byte[] part = new byte[65536];
      for (int read; (read = stream.read(part)) > 0; ) {
        all.write(part, 0, read);
      }
      return all.toByteArray();
    }
  }

  static String text(File file) throws IOException {
    return new String(bytes(file), StandardCharsets.UTF_8);
  }

  /** Kilobytes of this process in memory, once collections free no more; mapped files go some time after theirs. */
  static long residentKilobytes() throws IOException, InterruptedException {
    long lowest = Long.MAX_VALUE;
    for (int quiet = 0, rounds = 0; quiet < 5 && rounds < 100; rounds++) {
      System.gc();
      Thread.sleep(50);
      long now = residentKilobytesNow();
      quiet = now < lowest ? 0 : quiet + 1;
      lowest = Math.min(lowest, now);
    }
    return lowest;
  }

  private static long residentKilobytesNow() throws IOException {
    for (String line : text(new File("/proc/self/status")).split("\n")) {
      if (line.startsWith("VmRSS:")) {
        return Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    throw new IOException("no VmRSS in /proc/self/status");
  }

  /** Something that is done again and again. */
  interface Cycle {
    void run() throws Exception;
  }

  /** How many kilobytes more are in memory after 1000 cycles than after the first 200. */
  static long growthOfThousand(Cycle cycle) throws Exception {
    for (int i = 0; i < 200; i++) {
      cycle.run();
    }
    long before = residentKilobytes();
    for (int i = 0; i < 1000; i++) {
      cycle.run();
    }
    return residentKilobytes() - before;
  }

  /** Runs the same in four threads at once; what one throws is thrown. */
  static void inFourThreads(Cycle cycle) throws Exception {
    Thread[] threads = new Thread[4];
    Throwable[] thrown = new Throwable[threads.length];
    for (int i = 0; i < threads.length; i++) {
      int number = i;
      threads[i] = new Thread(() -> {
        try {
          cycle.run();
        } catch (Throwable error) {
          thrown[number] = error;
        }
      });
      threads[i].start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    for (Throwable error : thrown) {
      if (error != null) {
        throw new AssertionError(error);
      }
    }
  }
}
