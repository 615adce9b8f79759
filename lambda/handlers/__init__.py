"""One file per way in: parse, call one function, answer. No logic."""
