"""Everything that waits: the network, the threads, the stream that callers hold."""
