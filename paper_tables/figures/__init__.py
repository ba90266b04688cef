"""The paper's figures from recorded runs and from measurements on the models themselves; see `catalogue.FIGURES`."""
