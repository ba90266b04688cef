"""Instructions with contexts and answers in the shape of databricks-dolly-15k, and four out-of-distribution sets."""
