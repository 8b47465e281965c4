"""What is watched, what has been listed, and what is kept of it in memory. Pure but for clock and log."""
