"""What a task executes: train, evaluate, report, package, predict. Heavy: torch, Lightning and numpy live here."""
