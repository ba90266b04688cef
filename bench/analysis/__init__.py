"""What recorded runs say: differences with intervals (`compare`, `significance`), which times count (`timing`)."""
