"""Streams into the browser: one module per web framework, on a body that knows none of them."""
