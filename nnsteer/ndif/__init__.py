"""Running on a server of the National Deep Inference Fabric, or on one's own: what to send, and never to send twice."""
