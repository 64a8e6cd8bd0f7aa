package io.github.kerasefficient.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import android.os.Looper;
import android.view.View;
import android.widget.CheckBox;
import android.widget.ImageView;
import android.widget.LinearLayout;
import android.widget.RadioButton;
import android.widget.RadioGroup;
import android.widget.SeekBar;
import android.widget.TextView;
import java.io.ByteArrayInputStream;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.android.util.concurrent.InlineExecutorService;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowBitmapFactory;

@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
public final class MainActivityTest {
  /** The screen with a model that needs no native library, and with its background on the test's own thread. */
  public static final class Screen extends MainActivity {
    final FakeRecognizer recognizer = new FakeRecognizer();
    Callable<Recognizer> opening = () -> recognizer;

    @Override
    Callable<? extends Recognizer> opening() {
      return opening;
    }

    @Override
    ExecutorService newBackground() {
      return new InlineExecutorService();
    }
  }

  private ActivityController<Screen> controller;
  private Screen screen;

  @Before
  public void open() {
    Locale.setDefault(Locale.US);
    controller = Robolectric.buildActivity(Screen.class);
    screen = controller.get();
  }

  @After
  public void close() {
    controller.close();
  }

  private void start() {
    controller.setup();
    idle();
  }

  private static void idle() {
    shadowOf(Looper.getMainLooper()).idle();
  }

  private String text(int id) {
    return ((TextView) screen.findViewById(id)).getText().toString();
  }

  private RadioButton choice(int index) {
    return (RadioButton) ((RadioGroup) screen.findViewById(R.id.scales)).getChildAt(index);
  }

  @Test
  public void startsWithTheFirstSample() {
    start();
    assertEquals("dark (75 %)", text(R.id.label));
    assertEquals("Exit 3 of 3", text(R.id.exit));
    assertEquals("0.040 ms", text(R.id.time));
    assertEquals("100 % of the multiply-adds", text(R.id.share));
    assertNotNull(((ImageView) screen.findViewById(R.id.picture)).getDrawable());
    LinearLayout samples = screen.findViewById(R.id.samples);
    assertEquals(10, samples.getChildCount());
    assertEquals("Sample picture 1", samples.getChildAt(0).getContentDescription().toString());
  }

  @Test
  public void samplesCanBeChosen() {
    start();
    int before = screen.recognizer.values.size();
    ((LinearLayout) screen.findViewById(R.id.samples)).getChildAt(3).performClick();
    idle();
    assertEquals(before + 1, screen.recognizer.values.size());
  }

  @Test
  public void sliderMeansTheChosenScale() {
    start();
    SeekBar slider = screen.findViewById(R.id.budget);
    assertTrue(slider.isEnabled());
    assertTrue(choice(0).isChecked());
    assertEquals(50, slider.getProgress());
    assertEquals("Gives up to 0.100 of accuracy for the cost of one full network", text(R.id.budget_text));
    choice(1).performClick();
    idle();
    assertEquals(100, slider.getProgress());
    assertEquals("At most 0.040 ms, as measured on this device", text(R.id.budget_text));
    shadowOf(slider).getOnSeekBarChangeListener().onProgressChanged(slider, 0, true);
    idle();
    assertEquals("At most 0.010 ms, as measured on this device", text(R.id.budget_text));
    assertEquals("Exit 1 of 3", text(R.id.exit));
    assertEquals("25 % of the multiply-adds", text(R.id.share));
  }

  @Test
  public void inkOnPaperIsInverted() {
    start();
    ((CheckBox) screen.findViewById(R.id.invert)).performClick();
    idle();
    assertEquals("light (75 %)", text(R.id.label));
  }

  @Test
  public void pickingAsksForAPicture() {
    start();
    screen.findViewById(R.id.pick).performClick();
    Intent asked = shadowOf((Activity) screen).getNextStartedActivity();
    assertEquals(Intent.ACTION_OPEN_DOCUMENT, asked.getAction());
    assertEquals("image/*", asked.getType());
    assertTrue(asked.hasCategory(Intent.CATEGORY_OPENABLE));
  }

  @Test
  public void aDeviceWithoutPickerIsSaid() {
    start();
    shadowOf(screen.getApplication()).checkActivities(true);
    screen.findViewById(R.id.pick).performClick();
    assertEquals(screen.getString(R.string.no_picker), text(R.id.label));
  }

  @Test
  public void whatIsNoPictureIsSaid() {
    ShadowBitmapFactory.setAllowInvalidImageData(false);
    start();
    Uri document = Uri.parse("content://documents/1");
    shadowOf(screen.getContentResolver()).registerInputStream(document, new ByteArrayInputStream(new byte[0]));
    screen.findViewById(R.id.pick).performClick();
    Intent asked = shadowOf((Activity) screen).getNextStartedActivity();
    shadowOf((Activity) screen).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(document));
    idle();
    assertFalse(text(R.id.label), text(R.id.label).contains("%"));
    assertEquals("", text(R.id.exit));
  }

  @Test
  public void pickingNothingChangesNothing() {
    start();
    screen.findViewById(R.id.pick).performClick();
    Intent asked = shadowOf((Activity) screen).getNextStartedActivity();
    shadowOf((Activity) screen).receiveResult(asked, Activity.RESULT_CANCELED, null);
    idle();
    assertEquals("dark (75 %)", text(R.id.label));
  }

  @Test
  public void aModelThatDoesNotOpenIsSaid() {
    screen.opening = () -> {
      throw new IllegalArgumentException("The native library does not match this model.");
    };
    start();
    assertEquals("The native library does not match this model.", text(R.id.label));
    assertFalse(((View) screen.findViewById(R.id.budget)).isEnabled());
  }

  @Test
  public void anErrorWithoutWordsIsSaidInOurs() {
    screen.opening = () -> {
      throw new IllegalStateException();
    };
    start();
    assertEquals(screen.getString(R.string.unknown_error), text(R.id.label));
  }

  @Test
  public void leavingFreesTheModel() {
    start();
    controller.pause().stop().destroy();
    idle();
    assertEquals(1, screen.recognizer.closings);
  }
}
