package io.github.kerasefficient.app;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.util.Random;
import org.junit.Test;

public final class PictureTest {
  /** Grey pixels of one brightness each. */
  static Picture grey(int width, int height, int... brightness) {
    int[] argb = new int[brightness.length];
    for (int i = 0; i < argb.length; i++) {
      argb[i] = 0xff000000 | brightness[i] * 0x010101;
    }
    return new Picture(width, height, argb);
  }

  private static Picture random(int width, int height, long seed) {
    Random random = new Random(seed);
    int[] argb = new int[width * height];
    for (int i = 0; i < argb.length; i++) {
      argb[i] = 0xff000000 | random.nextInt(1 << 24);
    }
    return new Picture(width, height, argb);
  }

  private static void assertSame(Picture expected, Picture actual) {
    assertEquals(expected.width, actual.width);
    assertEquals(expected.height, actual.height);
    assertArrayEquals(expected.argb, actual.argb);
  }

  @Test
  public void pixelsMustFillTheSides() {
    assertThrows(IllegalArgumentException.class, () -> new Picture(2, 2, new int[3]));
    assertThrows(IllegalArgumentException.class, () -> new Picture(0, 2, new int[0]));
  }

  @Test
  public void cropTakesTheMiddle() {
    Picture wide = grey(6, 2, 0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15);
    assertSame(grey(2, 2, 2, 3, 12, 13), wide.centreCrop(1, 1));
    Picture tall = grey(2, 4, 0, 1, 2, 3, 4, 5, 6, 7);
    assertSame(grey(2, 1, 2, 3), tall.centreCrop(2, 1));
    assertSame(tall, tall.centreCrop(1, 2));
  }

  @Test
  public void cropOfALineIsOnePixel() {
    assertSame(grey(1, 1, 7), grey(3, 1, 5, 7, 9).centreCrop(1, 1));
    Picture line = random(1, 1000, 1);
    assertEquals(line.argb[499], line.centreCrop(1, 1).argb[0]);
  }

  @Test
  public void smallerIsTheMeanOverTheArea() {
    assertSame(grey(2, 1, 25, 200), grey(4, 2, 10, 20, 200, 200, 30, 40, 200, 200).resize(2, 1));
    // A pixel of two covers one and a half of three: (0 + 30 / 2) / 1.5 and (30 / 2 + 90) / 1.5.
    assertSame(grey(2, 1, 10, 70), grey(3, 1, 0, 30, 90).resize(2, 1));
  }

  @Test
  public void largerIsALineBetweenPixels() {
    assertSame(grey(4, 1, 0, 25, 75, 100), grey(2, 1, 0, 100).resize(4, 1));
    assertSame(grey(1, 4, 0, 25, 75, 100), grey(1, 2, 0, 100).resize(1, 4));
    assertSame(grey(3, 2, 9, 9, 9, 9, 9, 9), grey(1, 1, 9).resize(3, 2));
  }

  @Test
  public void channelsStayApart() {
    Picture picture = new Picture(2, 1, new int[] {0xff0a141e, 0xff1e2832});
    assertArrayEquals(new int[] {0xff141e28}, picture.resize(1, 1).argb);
  }

  @Test
  public void sameSizeIsTheSamePicture() {
    Picture picture = random(7, 5, 2);
    assertSame(picture, picture.resize(7, 5));
  }

  @Test
  public void squaresBecomeThePixelsThatTheyAre() {
    Picture digit = random(8, 8, 3);
    int[] blownUp = new int[64 * 64];
    for (int i = 0; i < blownUp.length; i++) {
      blownUp[i] = digit.argb[i / 64 / 8 * 8 + i % 64 / 8];
    }
    assertSame(digit, new Picture(64, 64, blownUp).resize(8, 8));
  }

  @Test
  public void onecolourStaysInAnySize() {
    int[] sides = {1, 2, 3, 5, 8, 13, 31};
    for (int from : sides) {
      for (int to : sides) {
        int[] argb = new int[from * 3];
        java.util.Arrays.fill(argb, 0xfffe0180);
        for (int pixel : new Picture(from, 3, argb).resize(to, 2).argb) {
          assertEquals(0xfffe0180, pixel);
        }
      }
    }
  }

  @Test
  public void rotationIsClockwise() {
    Picture picture = grey(2, 2, 1, 2, 3, 4);
    assertSame(grey(2, 2, 3, 1, 4, 2), picture.rotate(90));
    assertSame(grey(1, 2, 1, 2), grey(2, 1, 1, 2).rotate(90));
    assertSame(picture.rotate(270), picture.rotate(-90));
    assertSame(picture, picture.rotate(90).rotate(90).rotate(180));
    assertThrows(IllegalArgumentException.class, () -> picture.rotate(45));
  }

  @Test
  public void invertingTwiceIsNothing() {
    Picture picture = random(3, 3, 4);
    assertSame(grey(2, 1, 255, 55), grey(2, 1, 0, 200).invert());
    assertSame(picture, picture.invert().invert());
  }
}
