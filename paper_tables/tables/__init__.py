"""Tables as files: three views of each (measured, published, side by side), their captions, and the formats."""
