"""What is done: drives the decisions of `_core` on real threads, clocks and stores. Everything here is private."""
