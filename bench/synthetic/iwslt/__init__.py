"""English sentences with German translations in the shape of IWSLT 2017."""
