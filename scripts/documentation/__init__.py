"""Makes those parts of the documentation that follow from the code: pictures of flows, and the reference."""
