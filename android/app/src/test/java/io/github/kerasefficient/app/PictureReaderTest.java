package io.github.kerasefficient.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import android.content.ContentResolver;
import android.net.Uri;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowBitmapFactory;

@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
public final class PictureReaderTest {
  @Test
  public void samplesAreRead() throws Exception {
    Picture picture = PictureReader.asset(RuntimeEnvironment.getApplication().getAssets(), "samples/0.png").call();
    assertEquals(64, picture.width);
    assertEquals(64, picture.height);
  }

  @Test
  public void sidesAreHalvedWhileTheyStayLargeEnough() {
    assertEquals(1, PictureReader.sampleSize(100, 5000));
    assertEquals(1, PictureReader.sampleSize(1023, 1023));
    assertEquals(2, PictureReader.sampleSize(1024, 1024));
    assertEquals(4, PictureReader.sampleSize(4000, 3000));
    assertEquals(1, PictureReader.sampleSize(-1, -1));
  }

  @Test
  public void anAssetThatIsNotThereIsAnIoException() {
    assertThrows(IOException.class,
        PictureReader.asset(RuntimeEnvironment.getApplication().getAssets(), "samples/none.png")::call);
  }

  @Test
  public void anEmptyDocumentIsAnIoException() {
    ShadowBitmapFactory.setAllowInvalidImageData(false);
    ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
    Uri uri = Uri.parse("content://documents/empty");
    Shadows.shadowOf(resolver)
        .registerInputStreamSupplier(uri, () -> new ByteArrayInputStream(new byte[0]));
    assertThrows(IOException.class, PictureReader.document(resolver, uri)::call);
  }
}
