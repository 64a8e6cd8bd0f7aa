package io.github.kerasefficient;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.tensorflow.lite.Delegate;

/**
 * The package's kernels as a TensorFlow Lite delegate, for an interpreter of your own:
 *
 * <pre>{@code
 * try (KerasEfficientDelegate delegate = new KerasEfficientDelegate();
 *     Interpreter interpreter = new Interpreter(file, new Interpreter.Options().addDelegate(delegate))) {
 *   interpreter.run(input, output);
 * }
 * }</pre>
 *
 * <p>Close interpreters before their delegate. One delegate may serve several interpreters, in several threads. Kernels
 * use as many threads as their interpreter ({@code Interpreter.Options.setNumThreads}). Only runtimes inside the
 * application take native delegates; the one of Google Play services does not.
 */
public final class KerasEfficientDelegate implements Delegate, AutoCloseable {
  /** What a delegate is made with. */
  public static final class Options {
    private boolean stats;
    private String isa;
    private final List<String> plugins = new ArrayList<>();

    /** Whether kernels count what they execute, see {@link KerasEfficientDelegate#executedMacs()}. False by default. */
    public Options setStats(boolean stats) {
      this.stats = stats;
      return this;
    }

    /** The best instruction set that kernels may use; null (the default) for the best that the processor has. */
    public Options setIsa(String isa) {
      this.isa = isa;
      return this;
    }

    /** Adds the path of a shared library with further kernels. */
    public Options addPlugin(String path) {
      if (path == null || path.isEmpty() || path.indexOf(':') >= 0) {
        throw new IllegalArgumentException(
            "Invalid value for argument `path`. Expected the path of a shared library, without ':'. Received: " + path);
      }
      plugins.add(path);
      return this;
    }
  }

  private long handle;

  /**
   * A delegate with default options.
   *
   * @throws IllegalStateException if the native library cannot be loaded or is of another version.
   */
  public KerasEfficientDelegate() {
    this(new Options());
  }

  /**
   * A delegate.
   *
   * @throws IllegalStateException if the native library cannot be loaded or is of another version.
   * @throws IllegalArgumentException if the native library refuses an option; the message is its sentence.
   */
  public KerasEfficientDelegate(Options options) {
    NativeLibrary.load();
    List<String> pairs = new ArrayList<>();
    if (options.isa != null) {
      Collections.addAll(pairs, "isa", options.isa);
    }
    if (!options.plugins.isEmpty()) {
      StringBuilder paths = new StringBuilder();
      for (String path : options.plugins) {
        paths.append(path).append(':');
      }
      Collections.addAll(pairs, "plugins", paths.toString());
    }
    handle = NativeLibrary.create(pairs.toArray(new String[0]), options.stats);
  }

  /**
   * The ops that the native library has kernels for, with the newest version of each.
   *
   * @throws IllegalStateException if the native library cannot be loaded or is of another version.
   */
  public static Map<String, Integer> opVersions() {
    NativeLibrary.load();
    Map<String, Integer> versions = new TreeMap<>();
    for (String entry : NativeLibrary.ops()) {
      int space = entry.lastIndexOf(' ');
      versions.put(entry.substring(0, space), Integer.valueOf(entry.substring(space + 1)));
    }
    return versions;
  }

  /**
   * The address of the {@code TfLiteDelegate}; what an interpreter asks for.
   *
   * @throws IllegalStateException after {@link #close()}.
   */
  @Override
  public synchronized long getNativeHandle() {
    return NativeLibrary.delegate(open());
  }

  /**
   * Multiply-accumulates that kernels executed since the delegate was made or {@link #resetStats()}.
   *
   * @throws IllegalStateException after {@link #close()}, or if the delegate was made without stats.
   */
  public synchronized long executedMacs() {
    return NativeLibrary.stat(open(), NativeLibrary.EXECUTED_MACS);
  }

  /** How often kernels ran; throws what {@link #executedMacs()} throws. */
  public synchronized long kernelCalls() {
    return NativeLibrary.stat(open(), NativeLibrary.KERNEL_CALLS);
  }

  /** How many ops of models the delegate took over; throws what {@link #executedMacs()} throws. */
  public synchronized long claimedOps() {
    return NativeLibrary.stat(open(), NativeLibrary.CLAIMED_OPS);
  }

  /** Sets executed MACs and kernel calls to zero; throws what {@link #executedMacs()} throws. */
  public synchronized void resetStats() {
    NativeLibrary.resetStats(open());
  }

  /** Frees the delegate. Closing twice is fine. */
  @Override
  public synchronized void close() {
    long closing = handle;
    handle = 0;
    if (closing != 0) {
      NativeLibrary.destroy(closing);
    }
  }

  private long open() {
    if (handle == 0) {
      throw new IllegalStateException("The delegate is closed.");
    }
    return handle;
  }
}
