package io.github.kerasefficient;

import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import org.junit.Before;
import org.junit.Test;

/** In a virtual machine of its own, whose property names a library that cannot be used, or none. */
public class LibraryMissingTest {
  private String expected;

  @Before
  public void needsNoLibrary() {
    expected = Host.need("tests.failure");
  }

  @Test
  public void everyUseSaysWhy() {
    Runnable[] uses = {KerasEfficientDelegate::new, KerasEfficientDelegate::opVersions, KerasEfficientDelegate::new};
    for (Runnable use : uses) {
      try {
        use.run();
        fail();
      } catch (IllegalStateException error) {
        assertTrue(error.getMessage(), error.getMessage().contains(expected));
        assertTrue(error.getMessage(), error.getMessage().startsWith("The native library "));
      }
    }
  }

  @Test
  public void modelsThatNeedItSayWhy() throws Exception {
    try {
      DynamicModel.open(Host.model("gated.tflite")).close();
      fail();
    } catch (IllegalStateException error) {
      assertTrue(error.getMessage(), error.getMessage().contains(expected));
    }
  }
}
