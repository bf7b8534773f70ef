"""Links between institutions: gRPC with mutual TLS and a closed binary format; see docs/links.md."""
