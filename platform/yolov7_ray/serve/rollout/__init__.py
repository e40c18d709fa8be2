"""Another version of a served model takes over step by step, or is rolled back: candidate, statistics, decision."""
