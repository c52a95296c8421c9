"""Speed as ratios: two sides, interleaved in one run on one machine. `make bench` runs all and prints one table."""
