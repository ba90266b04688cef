"""What recorded runs say: differences with intervals (`compare`, `blocks`, `significance`), and times (`timing`)."""
