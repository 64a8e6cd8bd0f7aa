"""Filter sharing among tasks, beside single-task networks, hard sharing, cross-stitch and layer decisions."""
