"""How long things take and how much memory they need, beside what people do without the dispatcher. `make bench` runs it."""
