package io.github.kerasefficient;

/** The native library: loading it once, and the functions that it registers. Handles are addresses of its own. */
final class NativeLibrary {
  /** What Java and C agreed on; both sides are built from one tree, and a stale library is refused. */
  private static final int INTERFACE_VERSION = 1;

  /** A path to load instead of the library inside the application; for virtual machines that are no phone. */
  static final String PATH_PROPERTY = "io.github.kerasefficient.library";

  static final int EXECUTED_MACS = 1;
  static final int KERNEL_CALLS = 2;
  static final int CLAIMED_OPS = 3;

  private static boolean loaded;

  private NativeLibrary() {}

  /** Loads the library unless it is loaded; a failure is said again in every call. */
  static synchronized void load() {
    if (loaded) {
      return;
    }
    String path = System.getProperty(PATH_PROPERTY);
    int version;
    try {
      if (path == null) {
        System.loadLibrary("keras_efficient");
      } else {
        System.load(path);
      }
      version = interfaceVersion();
    } catch (LinkageError error) {
      throw new IllegalStateException("The native library " + (path == null ? "keras_efficient" : path)
          + " could not be loaded for " + System.getProperty("os.arch") + ": " + error.getMessage(), error);
    }
    if (version != INTERFACE_VERSION) {
      throw new IllegalStateException("The native library does not belong to these classes. Expected interface version "
          + INTERFACE_VERSION + ". Received: " + version);
    }
    loaded = true;
  }

  static native int interfaceVersion();

  /** Name, space, version of every op. */
  static native String[] ops();

  /** Options as key, value, key, value; throws IllegalArgumentException with the delegate's sentence. */
  static native long create(String[] options, boolean stats);

  static native void destroy(long handle);

  static native long delegate(long handle);

  /** One counter; throws IllegalStateException for a delegate without stats. */
  static native long stat(long handle, int which);

  static native void resetStats(long handle);
}
