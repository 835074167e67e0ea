"""Neural operators trained and timed against other people's writings of them."""
