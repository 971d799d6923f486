//! The orchestrating service.
