"""Images: where they come from, whether they may be trusted, and the host's cache of raw bases made from them."""
