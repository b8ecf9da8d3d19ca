//! The store on a NATS JetStream bucket.
