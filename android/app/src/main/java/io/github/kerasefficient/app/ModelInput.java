package io.github.kerasefficient.app;

import io.github.kerasefficient.ModelInfo;
import io.github.kerasefficient.Normalization;
import java.util.Arrays;

/** Turns pictures into what a model takes: centre crop, resize, normalisation as the model's metadata say. */
final class ModelInput {
  final int height;
  final int width;
  final int channels;
  private final Normalization normalization;

  /**
   * @param shape of the model's input, {@code [1, height, width, channels]}.
   * @throws IllegalArgumentException if this is no image of one or three channels, or the model does not say what is
   *     done to its pixels.
   */
  ModelInput(int[] shape, ModelInfo info) {
    if (shape.length != 4 || shape[0] != 1 || shape[1] < 1 || shape[2] < 1 || (shape[3] != 1 && shape[3] != 3)) {
      throw new IllegalArgumentException("The model takes no pictures. Expected an input [1, height, width, 1 or 3]. "
          + "Received: " + Arrays.toString(shape));
    }
    if (info.normalization() == null) {
      throw new IllegalArgumentException("The model does not say what to do to pixels from 0 to 255. Expected an export "
          + "with `normalization`, such as {\"mean\": 0.0, \"std\": 255.0}. Received: none");
    }
    height = shape[1];
    width = shape[2];
    channels = shape[3];
    normalization = info.normalization();
  }

  /** What the model sees of a picture: its middle, in the model's size. */
  Picture view(Picture picture) {
    return picture.centreCrop(width, height).resize(width, height);
  }

  /** Values {@code [height, width, channels]} of a picture that {@link #view} gave. */
  float[] values(Picture view) {
    return normalization.applyArgb(view.argb, channels);
  }
}
