package io.github.kerasefficient.app;

import android.content.ContentResolver;
import android.content.res.AssetManager;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.media.ExifInterface;
import android.net.Uri;
import java.io.IOException;
import java.io.InputStream;
import java.util.concurrent.Callable;

/** Reads pictures that the user chose, upright and no larger than needed, and those that come with the app. */
final class PictureReader {
  /** The shorter side of what is read stays above this, unless the picture itself is smaller. */
  private static final int ENOUGH = 512;

  private PictureReader() {}

  /** A picture among the app's assets. */
  static Callable<Picture> asset(final AssetManager assets, final String name) {
    return new Callable<Picture>() {
      @Override
      public Picture call() throws IOException {
        try (InputStream stream = assets.open(name)) {
          return decoded(stream, new BitmapFactory.Options(), name);
        }
      }
    };
  }

  /** A document that the user picked; the call throws IOException if it cannot be read or is no picture. */
  static Callable<Picture> document(final ContentResolver resolver, final Uri uri) {
    return new Callable<Picture>() {
      @Override
      public Picture call() throws IOException {
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        try (InputStream stream = opened(resolver, uri)) {
          BitmapFactory.decodeStream(stream, null, options);
        }
        options.inJustDecodeBounds = false;
        options.inSampleSize = sampleSize(options.outWidth, options.outHeight);
        Picture picture;
        try (InputStream stream = opened(resolver, uri)) {
          picture = decoded(stream, options, uri.toString());
        }
        try (InputStream stream = opened(resolver, uri)) {
          return picture.rotate(rotation(stream));
        }
      }
    };
  }

  /** The largest power of two by which both sides can be divided and stay large enough. */
  static int sampleSize(int width, int height) {
    int size = 1;
    while (Math.min(width, height) / (2 * size) >= ENOUGH) {
      size *= 2;
    }
    return size;
  }

  private static InputStream opened(ContentResolver resolver, Uri uri) throws IOException {
    InputStream stream = resolver.openInputStream(uri);
    if (stream == null) {
      throw new IOException("The document cannot be opened: " + uri);
    }
    return stream;
  }

  private static Picture decoded(InputStream stream, BitmapFactory.Options options, String name) throws IOException {
    Bitmap bitmap = BitmapFactory.decodeStream(stream, null, options);
    if (bitmap == null) {
      throw new IOException("This is no picture that Android can read: " + name);
    }
    int width = bitmap.getWidth();
    int height = bitmap.getHeight();
    int[] pixels = new int[width * height];
    bitmap.getPixels(pixels, 0, width, 0, 0, width, height);
    bitmap.recycle();
    return new Picture(width, height, pixels);
  }

  /** Degrees clockwise by which the camera says the picture must be turned; mirrored ones are taken as they are. */
  private static int rotation(InputStream stream) throws IOException {
    switch (new ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, 0)) {
      case ExifInterface.ORIENTATION_ROTATE_90:
        return 90;
      case ExifInterface.ORIENTATION_ROTATE_180:
        return 180;
      case ExifInterface.ORIENTATION_ROTATE_270:
        return 270;
      default:
        return 0;
    }
  }
}
