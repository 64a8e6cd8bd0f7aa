package io.github.kerasefficient.app;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.Callable;
import org.junit.Test;

public final class RecognitionPresenterTest {
  private static final Picture DARK = PictureTest.grey(2, 2, 0, 0, 0, 0);
  private static final Picture LIGHT = PictureTest.grey(2, 2, 255, 255, 255, 255);

  private final Queue<Runnable> waiting = new ArrayDeque<>();
  private final Screen screen = new Screen();
  private final FakeRecognizer recognizer = new FakeRecognizer();
  private final RecognitionPresenter presenter = new RecognitionPresenter(screen, waiting::add, Runnable::run);

  private void work() {
    while (!waiting.isEmpty()) {
      waiting.remove().run();
    }
  }

  private void loadAndChoose(Picture picture) {
    presenter.load(() -> recognizer);
    presenter.choosePicture(() -> picture);
    work();
  }

  @Test
  public void loadedAndChosenIsRecognized() {
    loadAndChoose(LIGHT);
    assertEquals(2, screen.scales.size());
    assertEquals("TRADE_OFF 50", screen.budgets.get(0));
    assertArrayEquals(LIGHT.argb, screen.picture.argb);
    assertEquals("light", screen.recognition.label);
    assertEquals(0.1f, recognizer.budgets.get(0).tradeOff(), 1e-6f);
    assertEquals(1, recognizer.budgets.size());
    assertTrue(screen.errors.isEmpty());
  }

  @Test
  public void pictureMayComeFirst() {
    presenter.choosePicture(() -> DARK);
    work();
    assertNull(screen.recognition);
    presenter.load(() -> recognizer);
    work();
    assertEquals("dark", screen.recognition.label);
  }

  @Test
  public void onlyTheNewestRequestRuns() {
    loadAndChoose(DARK);
    int before = recognizer.budgets.size();
    for (int position = 0; position <= 30; position++) {
      presenter.moveTo(position);
    }
    work();
    assertEquals(before + 1, recognizer.budgets.size());
    assertEquals((float) Math.pow(0.01, 0.3), recognizer.budgets.get(before).tradeOff(), 1e-6f);
    assertEquals("TRADE_OFF 30", screen.budgets.get(screen.budgets.size() - 1));
  }

  @Test
  public void aSliderThatStaysAsksNothing() {
    loadAndChoose(DARK);
    presenter.moveTo(50);
    work();
    assertEquals(1, recognizer.budgets.size());
  }

  @Test
  public void deadlineDecidesTheExit() {
    loadAndChoose(DARK);
    presenter.chooseScale(1);
    work();
    assertEquals(3, screen.recognition.exit);
    presenter.moveTo(0);
    work();
    assertEquals(1, screen.recognition.exit);
    presenter.moveTo(40); // 10 + 0.4 * 30 microseconds
    work();
    assertEquals(2, screen.recognition.exit);
  }

  @Test
  public void everyScaleKeepsItsPosition() {
    loadAndChoose(DARK);
    presenter.moveTo(20);
    presenter.chooseScale(1);
    presenter.moveTo(60);
    presenter.chooseScale(0);
    work();
    List<String> last = screen.budgets.subList(screen.budgets.size() - 3, screen.budgets.size());
    assertEquals(Arrays.asList("MICROSECONDS 100", "MICROSECONDS 60", "TRADE_OFF 20"), last);
  }

  @Test
  public void aScaleThatIsNotThereChangesNothing() {
    loadAndChoose(DARK);
    presenter.chooseScale(-1);
    presenter.chooseScale(2);
    work();
    assertEquals("TRADE_OFF 50", screen.budgets.get(screen.budgets.size() - 1));
  }

  @Test
  public void invertedIsLightForDark() {
    loadAndChoose(DARK);
    presenter.invert(true);
    work();
    assertEquals("light", screen.recognition.label);
    assertArrayEquals(new float[] {1, 1, 1, 1}, recognizer.values.get(1), 0);
    assertArrayEquals(LIGHT.argb, screen.picture.argb);
  }

  @Test
  public void aModelThatDoesNotLoadIsSaid() {
    presenter.load(() -> {
      throw new IOException("no such file");
    });
    presenter.choosePicture(() -> DARK);
    work();
    assertEquals(Arrays.asList("no such file"), screen.errors);
    assertNull(screen.recognition);
    presenter.moveTo(10);
    presenter.chooseScale(0);
    work();
  }

  @Test
  public void aMissingNativeLibraryIsSaid() {
    presenter.load(() -> {
      throw new UnsatisfiedLinkError("no library for this processor");
    });
    work();
    assertEquals(Arrays.asList("no library for this processor"), screen.errors);
  }

  @Test
  public void anUnreadablePictureLeavesTheLastOne() {
    loadAndChoose(LIGHT);
    presenter.choosePicture(() -> {
      throw new IOException("no picture");
    });
    work();
    assertEquals(Arrays.asList("no picture"), screen.errors);
    presenter.moveTo(10);
    work();
    assertEquals("light", screen.recognition.label);
  }

  @Test
  public void aRefusedBudgetIsSaidAndForgotten() {
    loadAndChoose(DARK);
    recognizer.failure = new IllegalArgumentException("not within this budget");
    presenter.moveTo(10);
    work();
    assertEquals(Arrays.asList("not within this budget"), screen.errors);
    recognizer.failure = null;
    screen.recognition = null;
    presenter.moveTo(11);
    work();
    assertEquals("dark", screen.recognition.label);
  }

  @Test
  public void anErrorWithoutWordsIsEmpty() {
    presenter.load(() -> {
      throw new IllegalStateException();
    });
    work();
    assertEquals(Arrays.asList(""), screen.errors);
  }

  @Test
  public void closedShowsNothingAndFreesTheModelOnce() {
    loadAndChoose(DARK);
    screen.recognition = null;
    presenter.moveTo(10);
    presenter.close();
    presenter.close();
    presenter.invert(true);
    work();
    assertNull(screen.recognition);
    assertEquals(1, recognizer.closings);
    assertEquals(1, recognizer.budgets.size());
  }

  @Test
  public void aModelThatComesTooLateIsFreed() {
    presenter.load(() -> recognizer);
    presenter.close();
    work();
    assertEquals(1, recognizer.closings);
    assertNull(screen.scales);
  }

  @Test
  public void errorsAfterTheEndAreNotShown() {
    Callable<Recognizer> failing = () -> {
      throw new IOException("too late");
    };
    presenter.load(failing);
    presenter.close();
    work();
    assertTrue(screen.errors.isEmpty());
  }

  private static final class Screen implements RecognitionPresenter.View {
    List<BudgetScale> scales;
    final List<String> budgets = new ArrayList<>();
    final List<String> errors = new ArrayList<>();
    Picture picture;
    Recognition recognition;

    @Override
    public void showScales(List<BudgetScale> scales) {
      this.scales = scales;
    }

    @Override
    public void showBudget(BudgetScale scale, int position) {
      budgets.add(scale.kind + " " + position);
    }

    @Override
    public void showPicture(Picture view) {
      picture = view;
    }

    @Override
    public void showRecognition(Recognition shown) {
      recognition = shown;
    }

    @Override
    public void showError(String message) {
      errors.add(message);
    }
  }
}
