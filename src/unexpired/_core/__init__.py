"""What is decided: pure code, without I/O, clock, randomness, threads or await. Everything here is private."""
