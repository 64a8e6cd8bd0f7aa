package io.github.kerasefficient.app;

/** What the screen shows of one answer. */
final class Recognition {
  final String label;
  final float confidence;
  final int exit;
  final int exits;
  final double milliseconds;
  final double share;

  /**
   * @param label name of the class.
   * @param confidence its probability, 0 to 1.
   * @param exit the exit taken, 1 for the first.
   * @param exits how many the model has.
   * @param milliseconds from the pixels to the answer.
   * @param share multiply-adds executed over those of the whole network, NaN where unknown.
   */
  Recognition(String label, float confidence, int exit, int exits, double milliseconds, double share) {
    this.label = label;
    this.confidence = confidence;
    this.exit = exit;
    this.exits = exits;
    this.milliseconds = milliseconds;
    this.share = share;
  }
}
