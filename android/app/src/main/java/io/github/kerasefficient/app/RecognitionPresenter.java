package io.github.kerasefficient.app;

import io.github.kerasefficient.Budget;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executor;

/**
 * What the screen does, without Android: loads the model, recognises the picture whenever it or the budget changes.
 *
 * <p>Its methods are called on the screen's thread, and so are those of the {@link View}; reading and computing happen
 * in the background, where only the newest request runs.
 */
final class RecognitionPresenter {
  /** What is on the screen. */
  interface View {
    /** The scales that the user can choose from; empty while there is no model, or where it has nothing to choose. */
    void showScales(List<BudgetScale> scales);

    /** The slider and what its position means. */
    void showBudget(BudgetScale scale, int position);

    /** The part of the picture that the model sees. */
    void showPicture(Picture view);

    /** An answer, replacing the last one or an error. */
    void showRecognition(Recognition recognition);

    /** Why there is no answer: one sentence, or empty where the error has none. */
    void showError(String message);
  }

  private final View view;
  private final Executor background;
  private final Executor screen;

  private Recognizer recognizer;
  private List<BudgetScale> scales = Collections.emptyList();
  private int[] positions = {};
  private int chosen;
  private Picture picture;
  private boolean inverted;
  private boolean closed;
  private volatile int newest;

  /**
   * @param background runs one task after the other, away from the screen.
   * @param screen runs tasks on the screen's thread.
   */
  RecognitionPresenter(View view, Executor background, Executor screen) {
    this.view = view;
    this.background = background;
    this.screen = screen;
  }

  /** Loads the model; a failure is shown. */
  void load(Callable<? extends Recognizer> opening) {
    background.execute(new Task<Recognizer>(opening) {
      @Override
      void done(Recognizer opened) {
        if (closed) {
          opened.close();
          return;
        }
        recognizer = opened;
        scales = opened.scales();
        positions = new int[scales.size()];
        for (int i = 0; i < positions.length; i++) {
          positions[i] = scales.get(i).initialPosition;
        }
        view.showScales(scales);
        chooseScale(0);
      }
    });
  }

  /** Reads a picture and recognises it; a failure is shown, and the last picture stays. */
  void choosePicture(Callable<Picture> reading) {
    background.execute(new Task<Picture>(reading) {
      @Override
      void done(Picture read) {
        picture = read;
        recognize();
      }
    });
  }

  /** Chooses one of the scales by its place in the list; each keeps its own position. */
  void chooseScale(int index) {
    if (index >= 0 && index < scales.size()) {
      chosen = index;
      view.showBudget(scales.get(chosen), positions[chosen]);
    }
    recognize();
  }

  /** Moves the slider. */
  void moveTo(int position) {
    if (!scales.isEmpty() && positions[chosen] != position) {
      positions[chosen] = position;
      view.showBudget(scales.get(chosen), position);
      recognize();
    }
  }

  /** Whether dark and light are exchanged before the model sees them: for ink on paper where it knows light on dark. */
  void invert(boolean inverted) {
    if (this.inverted != inverted) {
      this.inverted = inverted;
      recognize();
    }
  }

  /** Frees the model once what runs is done. Nothing is shown any more. */
  void close() {
    closed = true;
    newest++;
    if (recognizer != null) {
      final Recognizer model = recognizer;
      recognizer = null;
      background.execute(new Runnable() {
        @Override
        public void run() {
          model.close();
        }
      });
    }
  }

  private void recognize() {
    if (recognizer == null || picture == null || closed) {
      return;
    }
    final Recognizer model = recognizer;
    final Picture source = picture;
    final boolean exchanged = inverted;
    final Budget budget = scales.isEmpty() ? Budget.none() : scales.get(chosen).budget(positions[chosen]);
    final int request = ++newest;
    background.execute(new Runnable() {
      @Override
      public void run() {
        if (request == newest) {
          answer(request, model, exchanged ? source.invert() : source, budget);
        }
      }
    });
  }

  private void answer(final int request, final Recognizer model, final Picture source, final Budget budget) {
    new Task<Recognition>(new Callable<Recognition>() {
      @Override
      public Recognition call() {
        final Picture seen = model.input().view(source);
        screen.execute(new Runnable() {
          @Override
          public void run() {
            if (request == newest) {
              view.showPicture(seen);
            }
          }
        });
        return model.recognize(model.input().values(seen), budget);
      }
    }) {
      @Override
      void done(Recognition recognition) {
        if (request == newest) {
          view.showRecognition(recognition);
        }
      }
    }.run();
  }

  /** Calls something in the background and hands its result, or its error, to the screen. */
  private abstract class Task<T> implements Runnable {
    private final Callable<? extends T> work;

    Task(Callable<? extends T> work) {
      this.work = work;
    }

    abstract void done(T result);

    @Override
    public void run() {
      try {
        final T result = work.call();
        screen.execute(new Runnable() {
          @Override
          public void run() {
            done(result);
          }
        });
      } catch (final Exception | LinkageError | OutOfMemoryError error) {
        screen.execute(new Runnable() {
          @Override
          public void run() {
            if (!closed) {
              view.showError(error.getMessage() == null ? "" : error.getMessage());
            }
          }
        });
      }
    }
  }
}
