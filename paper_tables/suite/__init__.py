"""Making the runs of a suite: what is left to do (`plan`), doing it (`executors`), and showing it (`progress`)."""
