//! The record set.
