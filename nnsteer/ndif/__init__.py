"""Running on an NDIF server, the public one or one's own: what to send, and never to send twice."""
