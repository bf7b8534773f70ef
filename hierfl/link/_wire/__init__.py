"""The messages of links: `link.proto`, and `link_pb2`, which `python -m hierfl.link.generate` writes from it."""
