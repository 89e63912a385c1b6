"""The run directory and what is in it: journal, summary, best model, provenance. No Ray here."""
