package io.github.kerasefficient.app;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.github.kerasefficient.ModelInfo;
import org.junit.Test;

public final class ModelInputTest {
  private static final ModelInfo UNIT = ModelInfo.parse("{\"normalization\": {\"mean\": 0.0, \"std\": 255.0}}");

  @Test
  public void greyIsLumaFromZeroToOne() {
    ModelInput input = new ModelInput(new int[] {1, 1, 3, 1}, UNIT);
    Picture picture = new Picture(3, 1, new int[] {0xffffffff, 0xff000000, 0xffff0000});
    assertArrayEquals(new float[] {1, 0, 0.299f}, input.values(input.view(picture)), 1e-6f);
  }

  @Test
  public void coloursAreNormalisedOneByOne() {
    ModelInfo info =
        ModelInfo.parse("{\"normalization\": {\"mean\": [1.0, 2.0, 3.0], \"std\": [1.0, 10.0, 100.0]}}");
    ModelInput input = new ModelInput(new int[] {1, 1, 1, 3}, info);
    float[] values = input.values(new Picture(1, 1, new int[] {0xff0b1667}));
    assertArrayEquals(new float[] {10, 2, 1}, values, 1e-6f);
  }

  @Test
  public void viewIsTheMiddleInTheModelsSize() {
    ModelInput input = new ModelInput(new int[] {1, 1, 2, 1}, UNIT);
    Picture view = input.view(PictureTest.grey(4, 4, 0, 0, 0, 0, 10, 20, 30, 40, 10, 20, 30, 40, 0, 0, 0, 0));
    assertEquals(2, view.width);
    assertArrayEquals(PictureTest.grey(2, 1, 15, 35).argb, view.argb);
  }

  @Test
  public void whatIsNoPictureIsRefused() {
    int[][] shapes = {{1, 8, 8}, {2, 8, 8, 1}, {1, 8, 8, 4}, {1, 0, 8, 1}, {}};
    for (int[] shape : shapes) {
      assertThrows(IllegalArgumentException.class, () -> new ModelInput(shape, UNIT));
    }
  }

  @Test
  public void unknownNormalisationIsRefused() {
    IllegalArgumentException error = assertThrows(
        IllegalArgumentException.class, () -> new ModelInput(new int[] {1, 8, 8, 1}, ModelInfo.parse("{}")));
    assertTrue(error.getMessage(), error.getMessage().contains("normalization"));
  }
}
