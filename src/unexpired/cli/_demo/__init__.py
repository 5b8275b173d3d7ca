"""The demonstration: callers on real sockets at the moment their token expires, measured and drawn."""
