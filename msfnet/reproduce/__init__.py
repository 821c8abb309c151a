"""The paper's tables, trained and scored again: rows and scales as data, runs through the sweep's engine, one page."""
