"""Trains through faults at random and shows that nothing is lost."""
