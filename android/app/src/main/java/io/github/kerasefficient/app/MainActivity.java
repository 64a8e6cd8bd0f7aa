package io.github.kerasefficient.app;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.drawable.BitmapDrawable;
import android.net.Uri;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.view.View;
import android.widget.CheckBox;
import android.widget.CompoundButton;
import android.widget.ImageButton;
import android.widget.ImageView;
import android.widget.LinearLayout;
import android.widget.RadioButton;
import android.widget.RadioGroup;
import android.widget.SeekBar;
import android.widget.TextView;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The one screen: a picture, what the model says of it, at which exit and how fast, and a slider for the budget. */
public class MainActivity extends Activity implements RecognitionPresenter.View {
  private static final String MODEL = "model.tflite";
  private static final String SAMPLES = "samples";
  private static final int PICK_PICTURE = 1;

  private RecognitionPresenter presenter;
  private ExecutorService background;
  private RadioGroup scaleChoice;
  private SeekBar slider;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    setContentView(R.layout.main);
    scaleChoice = findViewById(R.id.scales);
    slider = findViewById(R.id.budget);
    slider.setMax(BudgetScale.STEPS);
    slider.setEnabled(false);
    background = newBackground();
    presenter = new RecognitionPresenter(this, background, screenOf(new Handler(Looper.getMainLooper())));
    listen();
    presenter.load(opening());
    showSamples();
  }

  @Override
  protected void onDestroy() {
    presenter.close();
    background.shutdown();
    super.onDestroy();
  }

  @Override
  protected void onActivityResult(int request, int result, Intent data) {
    super.onActivityResult(request, result, data);
    Uri uri = data == null ? null : data.getData();
    if (request == PICK_PICTURE && result == RESULT_OK && uri != null) {
      presenter.choosePicture(PictureReader.document(getContentResolver(), uri));
    }
  }

  /** Where pictures are read and models run, one task after the other. */
  ExecutorService newBackground() {
    return Executors.newSingleThreadExecutor();
  }

  /** How the model is opened, in the background. */
  Callable<? extends Recognizer> opening() {
    return new Callable<Recognizer>() {
      @Override
      public Recognizer call() throws IOException {
        return ModelRecognizer.open(getAssets().open(MODEL));
      }
    };
  }

  private static Executor screenOf(final Handler handler) {
    return new Executor() {
      @Override
      public void execute(Runnable task) {
        handler.post(task);
      }
    };
  }

  private void listen() {
    findViewById(R.id.pick).setOnClickListener(new View.OnClickListener() {
      @Override
      public void onClick(View button) {
        Intent intent = new Intent(Intent.ACTION_OPEN_DOCUMENT);
        intent.addCategory(Intent.CATEGORY_OPENABLE);
        intent.setType("image/*");
        try {
          startActivityForResult(intent, PICK_PICTURE);
        } catch (ActivityNotFoundException error) {
          showError(getString(R.string.no_picker));
        }
      }
    });
    CheckBox invert = findViewById(R.id.invert);
    invert.setOnCheckedChangeListener(new CompoundButton.OnCheckedChangeListener() {
      @Override
      public void onCheckedChanged(CompoundButton box, boolean checked) {
        presenter.invert(checked);
      }
    });
    scaleChoice.setOnCheckedChangeListener(new RadioGroup.OnCheckedChangeListener() {
      @Override
      public void onCheckedChanged(RadioGroup group, int id) {
        presenter.chooseScale(group.indexOfChild(group.findViewById(id)));
      }
    });
    slider.setOnSeekBarChangeListener(new SeekBar.OnSeekBarChangeListener() {
      @Override
      public void onProgressChanged(SeekBar bar, int position, boolean fromUser) {
        if (fromUser) {
          presenter.moveTo(position);
        }
      }

      @Override
      public void onStartTrackingTouch(SeekBar bar) {}

      @Override
      public void onStopTrackingTouch(SeekBar bar) {}
    });
  }

  /** A row of pictures that come with the app; the first is chosen. */
  private void showSamples() {
    LinearLayout row = findViewById(R.id.samples);
    int size = getResources().getDimensionPixelSize(R.dimen.sample);
    try {
      String[] names = getAssets().list(SAMPLES);
      for (int i = 0; names != null && i < names.length; i++) {
        final Callable<Picture> reading = PictureReader.asset(getAssets(), SAMPLES + "/" + names[i]);
        ImageButton button = new ImageButton(this);
        button.setImageDrawable(drawable(reading.call()));
        button.setScaleType(ImageView.ScaleType.FIT_CENTER);
        button.setContentDescription(getString(R.string.sample, i + 1));
        button.setOnClickListener(new View.OnClickListener() {
          @Override
          public void onClick(View clicked) {
            presenter.choosePicture(reading);
          }
        });
        row.addView(button, new LinearLayout.LayoutParams(size, size));
        if (i == 0) {
          presenter.choosePicture(reading);
        }
      }
    } catch (Exception error) {
      showError(error.getMessage());
    }
  }

  @Override
  public void showScales(List<BudgetScale> scales) {
    scaleChoice.removeAllViews();
    for (BudgetScale scale : scales) {
      RadioButton button = new RadioButton(this);
      button.setId(View.generateViewId());
      button.setText(scale.kind == BudgetScale.Kind.TRADE_OFF ? R.string.trade_off : R.string.deadline);
      scaleChoice.addView(button);
    }
    slider.setEnabled(!scales.isEmpty());
    if (!scales.isEmpty()) {
      ((RadioButton) scaleChoice.getChildAt(0)).setChecked(true);
    }
  }

  @Override
  public void showBudget(BudgetScale scale, int position) {
    slider.setProgress(position);
    double value = scale.value(position);
    String text;
    switch (scale.kind) {
      case TRADE_OFF:
        text = getString(R.string.trade_off_value, value);
        break;
      case MICROSECONDS:
        text = getString(R.string.milliseconds_value, value / 1000);
        break;
      default:
        text = getString(R.string.macs_value, value);
    }
    text(R.id.budget_text, text);
  }

  @Override
  public void showPicture(Picture view) {
    ((ImageView) findViewById(R.id.picture)).setImageDrawable(drawable(view));
  }

  @Override
  public void showRecognition(Recognition recognition) {
    text(R.id.label, getString(R.string.label, recognition.label, 100 * recognition.confidence));
    text(R.id.exit, getString(R.string.exit, recognition.exit, recognition.exits));
    text(R.id.time, getString(R.string.time, recognition.milliseconds));
    text(R.id.share, Double.isNaN(recognition.share) ? "" : getString(R.string.share, 100 * recognition.share));
  }

  @Override
  public void showError(String message) {
    text(R.id.label, message == null || message.isEmpty() ? getString(R.string.unknown_error) : message);
    text(R.id.exit, "");
    text(R.id.time, "");
    text(R.id.share, "");
  }

  private void text(int id, String text) {
    ((TextView) findViewById(id)).setText(text);
  }

  /** The pixels as they are, large and without smoothing. */
  private BitmapDrawable drawable(Picture picture) {
    Bitmap bitmap = Bitmap.createBitmap(picture.argb, picture.width, picture.height, Bitmap.Config.ARGB_8888);
    BitmapDrawable drawable = new BitmapDrawable(getResources(), bitmap);
    drawable.setFilterBitmap(false);
    return drawable;
  }
}
