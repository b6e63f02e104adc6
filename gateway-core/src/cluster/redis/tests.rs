//! What only a real server shows: faults, access, TLS, and what stands before several of them.
