"""What every room stands on: the clock, the random streams, page arithmetic, and the History that a
run leaves."""
