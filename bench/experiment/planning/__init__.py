"""What a run will take, before anything is spent: parameters, memory, arithmetic, tokens, hours."""
