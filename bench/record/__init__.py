"""Finished runs: the record (`record`), its file (`read`, `migrations`), all of a folder (`store`), copies of them."""
