//! TLS listeners and the streaming protocols.
