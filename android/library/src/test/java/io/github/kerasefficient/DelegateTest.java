package io.github.kerasefficient;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.util.Map;
import org.junit.Before;
import org.junit.Test;

/** The Java binding of the real library: making, closing, counting, from many threads, and everything that is wrong. */
public class DelegateTest {
  @Before
  public void needsLibrary() {
    Host.needsLibrary();
  }

  private static KerasEfficientDelegate.Options options() {
    return new KerasEfficientDelegate.Options();
  }

  @Test
  public void aDelegateHasAHandleUntilItIsClosed() {
    KerasEfficientDelegate delegate = new KerasEfficientDelegate();
    long handle = delegate.getNativeHandle();
    assertNotEquals(0, handle);
    assertEquals(handle, delegate.getNativeHandle());
    delegate.close();
    delegate.close();
    assertClosed(delegate::getNativeHandle);
    assertClosed(delegate::executedMacs);
    assertClosed(delegate::kernelCalls);
    assertClosed(delegate::claimedOps);
    assertClosed(delegate::resetStats);
  }

  private static void assertClosed(Runnable call) {
    try {
      call.run();
      fail();
    } catch (IllegalStateException error) {
      assertEquals("The delegate is closed.", error.getMessage());
    }
  }

  @Test
  public void delegatesAreApart() {
    try (KerasEfficientDelegate first = new KerasEfficientDelegate();
        KerasEfficientDelegate second = new KerasEfficientDelegate()) {
      assertNotEquals(first.getNativeHandle(), second.getNativeHandle());
    }
  }

  @Test
  public void countersBeginAtZero() {
    for (int i = 0; i < 3; i++) { // the counters of a closed delegate are used again
      try (KerasEfficientDelegate delegate = new KerasEfficientDelegate(options().setStats(true))) {
        assertEquals(0, delegate.executedMacs());
        assertEquals(0, delegate.kernelCalls());
        assertEquals(0, delegate.claimedOps());
        delegate.resetStats();
      }
    }
  }

  @Test
  public void withoutStatsNothingIsCounted() {
    try (KerasEfficientDelegate delegate = new KerasEfficientDelegate()) {
      delegate.executedMacs();
      fail();
    } catch (IllegalStateException error) {
      assertTrue(error.getMessage(), error.getMessage().contains("Options.setStats(true)"));
    }
  }

  @Test
  public void theLibraryKnowsItsOps() {
    Map<String, Integer> versions = KerasEfficientDelegate.opVersions();
    assertTrue(versions.toString(), versions.get("ke.gated_conv_2d") >= 1);
    assertTrue(versions.toString(), versions.get("ke.multi_bit_dense") >= 1);
  }

  @Test
  public void instructionSetsAreNames() {
    new KerasEfficientDelegate(options().setIsa("scalar")).close();
    assertRefused(options().setIsa("mmx"), "keras-efficient: Invalid value for option `isa`", "Received: mmx");
    assertRefused(options().setIsa("\u00fc\u6c34\ud83d\ude00"), "option `isa`"); // half a character must not do harm
  }

  @Test
  public void pluginsMustBeThere() {
    assertRefused(options().addPlugin("/nowhere/libkernels.so"), "/nowhere/libkernels.so");
    assertRefused(options().setStats(true).addPlugin("/etc/passwd"), "/etc/passwd");
    for (String path : new String[] {null, "", "a:b"}) {
      try {
        options().addPlugin(path);
        fail();
      } catch (IllegalArgumentException error) {
        assertTrue(error.getMessage(), error.getMessage().startsWith("Invalid value for argument `path`"));
      }
    }
  }

  private static void assertRefused(KerasEfficientDelegate.Options options, String... words) {
    try {
      new KerasEfficientDelegate(options).close();
    } catch (IllegalArgumentException error) {
      for (String word : words) {
        assertTrue(error.getMessage(), error.getMessage().contains(word));
      }
      return;
    }
    fail("accepted");
  }

  /** Makes, asks and closes. */
  private static void cycle() {
    KerasEfficientDelegate delegate = new KerasEfficientDelegate(options().setStats(true));
    assertNotEquals(0, delegate.getNativeHandle());
    assertEquals(0, delegate.claimedOps());
    delegate.close();
    delegate.close();
  }

  private static void refusedCycle() {
    assertRefused(options().setStats(true).setIsa("mmx"), "mmx");
  }

  @Test
  public void aThousandTimesWithoutALeak() throws Exception {
    long growth = Host.growthOfThousand(() -> {
      cycle();
      refusedCycle();
    });
    assertTrue("grew by " + growth + " KB", growth < 6 * 1024);
  }

  @Test
  public void fromFourThreads() throws Exception {
    Host.inFourThreads(() -> {
      for (int i = 0; i < 1000; i++) {
        cycle();
      }
    });
  }

  @Test
  public void oneDelegateClosedByFourThreads() throws Exception {
    for (int i = 0; i < 200; i++) {
      KerasEfficientDelegate delegate = new KerasEfficientDelegate(options().setStats(true));
      Host.inFourThreads(() -> {
        try {
          delegate.executedMacs();
          delegate.getNativeHandle();
        } catch (IllegalStateException error) {
          assertEquals("The delegate is closed.", error.getMessage());
        }
        delegate.close();
      });
    }
  }
}
