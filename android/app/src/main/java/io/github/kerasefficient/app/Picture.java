package io.github.kerasefficient.app;

/** Pixels of an image, one {@code 0xAARRGGBB} each, row by row. Immutable as long as nobody writes into its array. */
final class Picture {
  final int width;
  final int height;
  final int[] argb;

  /** @throws IllegalArgumentException if there are not width times height pixels, or none at all. */
  Picture(int width, int height, int[] argb) {
    if (width < 1 || height < 1 || argb.length != (long) width * height) {
      throw new IllegalArgumentException("Invalid value for argument `argb`. Expected " + width + " x " + height
          + " pixels, at least one. Received: " + argb.length);
    }
    this.width = width;
    this.height = height;
    this.argb = argb;
  }

  /** The largest part in the middle whose sides have the ratio {@code width : height}. */
  Picture centreCrop(int width, int height) {
    int cropWidth = (int) Math.max(1, Math.min(this.width, Math.round((double) this.height * width / height)));
    int cropHeight = (int) Math.max(1, Math.min(this.height, Math.round((double) this.width * height / width)));
    int left = (this.width - cropWidth) / 2;
    int top = (this.height - cropHeight) / 2;
    int[] cropped = new int[cropWidth * cropHeight];
    for (int y = 0; y < cropHeight; y++) {
      System.arraycopy(argb, (top + y) * this.width + left, cropped, y * cropWidth, cropWidth);
    }
    return new Picture(cropWidth, cropHeight, cropped);
  }

  /**
   * Scaled to another size: smaller by the mean over the area that a new pixel covers, larger by straight lines between
   * pixels. Each channel is rounded to the nearest whole number; transparency is dropped.
   */
  Picture resize(int width, int height) {
    Filter across = new Filter(this.width, width);
    Filter down = new Filter(this.height, height);
    int[] resized = new int[Math.multiplyExact(width, height)];
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        resized[y * width + x] = sample(across, x, down, y);
      }
    }
    return new Picture(width, height, resized);
  }

  private int sample(Filter across, int x, Filter down, int y) {
    double red = 0;
    double green = 0;
    double blue = 0;
    for (int i = 0; i < down.weights[y].length; i++) {
      int row = (down.first[y] + i) * width;
      for (int j = 0; j < across.weights[x].length; j++) {
        double weight = down.weights[y][i] * across.weights[x][j];
        int pixel = argb[row + across.first[x] + j];
        red += weight * (pixel >> 16 & 0xff);
        green += weight * (pixel >> 8 & 0xff);
        blue += weight * (pixel & 0xff);
      }
    }
    return 0xff000000 | (int) (red + 0.5) << 16 | (int) (green + 0.5) << 8 | (int) (blue + 0.5);
  }

  /**
   * Turned clockwise.
   *
   * @throws IllegalArgumentException if the angle is no multiple of 90.
   */
  Picture rotate(int degrees) {
    int quarters = Math.floorMod(degrees, 360) / 90;
    if (degrees % 90 != 0) {
      throw new IllegalArgumentException(
          "Invalid value for argument `degrees`. Expected a multiple of 90. Received: " + degrees);
    }
    Picture turned = this;
    for (int i = 0; i < quarters; i++) {
      turned = turned.quarterTurn();
    }
    return turned;
  }

  private Picture quarterTurn() {
    int[] turned = new int[argb.length];
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        turned[x * height + height - 1 - y] = argb[y * width + x];
      }
    }
    return new Picture(height, width, turned);
  }

  /** Dark for light and light for dark. */
  Picture invert() {
    int[] inverted = new int[argb.length];
    for (int i = 0; i < argb.length; i++) {
      inverted[i] = argb[i] ^ 0xffffff;
    }
    return new Picture(width, height, inverted);
  }

  /** Which old pixels make a new one along one side, and by how much; the weights of a new pixel add up to 1. */
  private static final class Filter {
    final int[] first;
    final double[][] weights;

    Filter(int from, int to) {
      first = new int[to];
      weights = new double[to][];
      double scale = (double) from / to;
      for (int i = 0; i < to; i++) {
        if (scale >= 1) {
          cover(i, from, i * scale, (i + 1) * scale);
        } else {
          interpolate(i, from, (i + 0.5) * scale - 0.5);
        }
      }
    }

    private void cover(int i, int from, double begin, double end) {
      int last = Math.min(from, (int) Math.ceil(end - 1e-9));
      first[i] = Math.min((int) begin, last - 1);
      weights[i] = new double[last - first[i]];
      for (int j = first[i]; j < last; j++) {
        weights[i][j - first[i]] = (Math.min(end, j + 1) - Math.max(begin, j)) / (end - begin);
      }
    }

    private void interpolate(int i, int from, double centre) {
      double inside = Math.max(0, Math.min(from - 1, centre));
      first[i] = (int) Math.min(inside, Math.max(0, from - 2));
      double share = inside - first[i];
      weights[i] = from == 1 ? new double[] {1} : new double[] {1 - share, share};
    }
  }
}
