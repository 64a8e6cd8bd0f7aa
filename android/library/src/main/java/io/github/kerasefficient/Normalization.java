package io.github.kerasefficient;

/** What the model expects to be done to raw values: {@code x = (raw - mean) / std}, per channel or for all alike. */
public final class Normalization {
  private final float[] mean;
  private final float[] std;

  Normalization(float[] mean, float[] std) {
    this.mean = mean;
    this.std = std;
  }

  /** One value for all channels, or one per channel. */
  public float[] mean() {
    return mean.clone();
  }

  /** One value for all channels, or one per channel. */
  public float[] std() {
    return std.clone();
  }

  /**
   * Normalises raw values whose innermost dimension is the channels.
   *
   * @throws IllegalArgumentException if the normalisation is per channel and the values are no whole number of pixels.
   */
  public float[] apply(float[] raw) {
    int period = Math.max(mean.length, std.length);
    if (raw.length % period != 0) {
      throw new IllegalArgumentException("Invalid value for argument `raw`. Expected whole pixels of " + period
          + " channels. Received: " + raw.length + " values");
    }
    float[] result = new float[raw.length];
    for (int i = 0; i < raw.length; i++) {
      result[i] = (raw[i] - mean[i % mean.length]) / std[i % std.length];
    }
    return result;
  }

  /**
   * Turns pixels as {@code Bitmap.getPixels} gives them into a model's input.
   *
   * @param pixels one {@code 0xAARRGGBB} per pixel, row by row.
   * @param channels 3 (red, green, blue) or 1 (luma, 0.299 R + 0.587 G + 0.114 B).
   * @return normalised values, channels innermost, as {@code [height, width, channels]}.
   * @throws IllegalArgumentException for another number of channels.
   */
  public float[] applyArgb(int[] pixels, int channels) {
    if (channels != 1 && channels != 3) {
      throw new IllegalArgumentException(
          "Invalid value for argument `channels`. Expected 1 or 3. Received: " + channels);
    }
    float[] raw = new float[pixels.length * channels];
    for (int i = 0; i < pixels.length; i++) {
      int red = pixels[i] >> 16 & 0xff;
      int green = pixels[i] >> 8 & 0xff;
      int blue = pixels[i] & 0xff;
      if (channels == 1) {
        raw[i] = 0.299f * red + 0.587f * green + 0.114f * blue;
      } else {
        raw[3 * i] = red;
        raw[3 * i + 1] = green;
        raw[3 * i + 2] = blue;
      }
    }
    return apply(raw);
  }
}
