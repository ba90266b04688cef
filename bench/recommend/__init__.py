"""Which method to use: what recorded runs say (`from_records`), or a short suite on the user's own task (`halving`)."""
